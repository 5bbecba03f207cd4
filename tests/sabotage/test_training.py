"""Models, losses, optimizers and loaders that cannot learn or that fool a loss: each is named."""

from __future__ import annotations

import pytest

from tests.sabotage.conftest import SPLIT, Victim
from tests.support.configs import write_tiny
from tests.support.sessions import CRITERIA, RUN, STAGES, echoes, expect_red, not_judged, reports_of

SHORT = "overfit.budget.max_steps=60"
LONG = "max_epochs=30"  # for what has more to learn than the tiny model by itself


def test_a_learning_rate_of_zero_moves_nothing(victim: Victim) -> None:
    """Everything is finite and gets a gradient, and nothing learns."""
    result = victim.run("optim.optimizer.lr=0", SHORT)
    expect_red(
        result,
        {
            "gradients": "does not move: the learning rate is 0 at every step",
            **dict.fromkeys(("objective", "camera", "depth", "monotonic", "prediction"), "lr-low, see ::gradients"),
        },
        green=(*STAGES, RUN, "supervised", "constant_batch", "finite", "train_val", "defects"),
    )
    assert "the learning rate is 0 in every group" in reports_of(result)["gradients"].longreprtext.splitlines()[0]
    assert "does not fall" in reports_of(result)["monotonic"].longreprtext


def test_a_model_that_is_frozen_as_a_whole_is_named(victim: Victim) -> None:
    """No step is made, and what did not happen is not judged as if it had."""
    expect_red(
        victim.run('optim.frozen_module_names=["*"]'),
        {
            **echoes("gradients", "constant_batch", "defects"),
            "gradients": "all 4 parameter tensors are frozen, allowed all that is trainable learns, nothing else "
            "moves where: frozen by '*' (4 tensors)",
            "defects": "not asked: nothing was trained",
        },
        green=(*STAGES, RUN, "constant_batch"),
    )


def test_a_frozen_depth_head_misses_depth_alone(victim: Victim) -> None:
    """What was declared frozen may stay where it is, but then its term cannot reach its limit."""
    expect_red(
        victim.run("optim.frozen_module_names=[trunk]"),
        {"depth": "allowed < 0.01", "prediction": "AbsRel"},
        green=(*STAGES, RUN, "supervised", "constant_batch", "finite", "gradients", "camera", "train_val", "defects"),
    )


def test_an_unused_parameter_is_named(victim: Victim) -> None:
    """A head that is not connected to the loss."""
    expect_red(
        victim.run(model="saboteurs.Unused"),
        {"gradients": "2 parameter tensors: no gradient arrives"},
        green=(*STAGES, RUN, *(name for name in CRITERIA if name != "gradients")),
    )


def test_a_flipped_sign_is_no_success(victim: Victim) -> None:
    """The objective is far below its limit; the bounded terms tell."""
    result = victim.run(SHORT, loss="saboteurs.FlippedLoss")
    expect_red(
        result,
        {
            "objective": "is negative and proves nothing alone",
            "camera": "allowed < 0.001",
            "depth": "allowed < 0.01",
            "supervised": "objective starts at",
        },
        green=(*STAGES, RUN, "constant_batch", "finite", "gradients", "train_val", "defects"),
    )


def test_a_nan_that_the_loss_scrubs_is_traced_to_its_module(victim: Victim) -> None:
    """Tensor and module, though every loss term is finite."""
    expect_red(
        victim.run(model="tiny.NanCamera", loss="saboteurs.ScrubbingLoss"),
        {**echoes("finite", "supervised", "constant_batch", "defects"),
         "finite": "prediction pose_enc is not finite at step 1, allowed finite losses, predictions, gradients and "
         "state where: first in module spoil (Spoil)"},
        green=(*STAGES, RUN, "supervised", "constant_batch", "defects"),
    )  # fmt: skip


def test_a_nan_in_the_middle_names_term_and_step(victim: Victim) -> None:
    """The probes call the loss a few times before the first step."""
    result = victim.run(loss="saboteurs.NanLaterLoss")
    expect_red(
        result,
        {
            **echoes("finite", "supervised", "constant_batch", "gradients", "defects"),
            "finite": "loss term objective is not finite at step 29",
        },
        green=(*STAGES, RUN, "supervised", "constant_batch", "gradients", "defects"),
    )


def test_confidence_alone_is_no_success(victim: Victim) -> None:
    """The objective is below its limit while the camera is 40 times above its own: neither is green."""
    victim.pytester.makeconftest(
        """
        import pytest
        from tests.support.saboteurs import Overconfident

        @pytest.fixture
        def overfit_model(overfit_batch):
            return Overconfident(overfit_batch)
        """
    )
    result = victim.run("optim.optimizer.lr=0.5", SHORT)
    expect_red(
        result,
        {
            "objective": "is negative and proves nothing alone: loss_camera is 0.0408, limit < 0.001",
            "camera": "loss_camera 0.0408",
            "depth": "loss_reg_depth 0.02",
        },
        green=(*STAGES, RUN, "supervised", "constant_batch", "finite", "gradients", "train_val", "defects"),
    )


def test_evaluation_mode_that_disagrees_is_found(victim: Victim) -> None:
    """Batch statistics that evaluation does not share."""
    result = victim.run(LONG, model="saboteurs.StaleStatistics")
    expect_red(
        result,
        {"train_val": "in evaluation, -1.0", "defects": "mode-gap, see ::train_val"},
        green=(*STAGES, RUN, *(name for name in CRITERIA if name not in ("train_val", "defects"))),
    )
    assert "running_mean and running_var stand still" in " ".join(reports_of(result)["train_val"].longreprtext.split())


def test_depth_in_the_wrong_unit_is_found(victim: Victim) -> None:
    """The loss is content; the prediction itself is 40 times too large."""
    result = victim.run(LONG, loss="saboteurs.MetricDepthLoss")
    expect_red(
        result,
        {"prediction": "AbsRel", "defects": "scale: depth is 41.1 times the depth of the batch"},
        green=(*STAGES, RUN, *(name for name in CRITERIA if name not in ("prediction", "defects"))),
    )


def test_a_term_that_the_loss_does_not_give_is_an_error(victim: Victim) -> None:
    """The terms that there are are listed, and how to do without."""
    expect_red(
        victim.run(SHORT, loss="saboteurs.CameraBlindLoss"),
        {
            "camera": "the loss gives no such term, allowed < 0.001 for 5 steps in a row where: terms of the loss: "
            "objective, loss_reg_depth next: name a term that exists, or switch the criterion off with "
            "overfit.criteria.camera: false",
            "gradients": "no gradient arrives",
            "prediction": "rotation",
        },
        green=(*STAGES, RUN, *(name for name in CRITERIA if name not in ("camera", "gradients", "prediction"))),
    )


def test_a_model_that_raises_shows_its_traceback_once(victim: Victim) -> None:
    """The user's own lines, not ours; every other item points there."""
    result = victim.run(model="saboteurs.Raises")
    expect_red(
        result,
        {RUN: "RuntimeError: the aggregator wants patches", **not_judged(RUN, CRITERIA)},
        green=STAGES,
    )
    shown = reports_of(result)[RUN].longreprtext
    assert "saboteurs.py" in shown
    assert "execute.py" not in shown
    assert result.outlines.count("E       RuntimeError: the aggregator wants patches of 16 pixels") == 1


def test_a_run_that_is_cut_short_never_passes(victim: Victim) -> None:
    """The clock ends it; what it showed until then is told."""
    expect_red(
        victim.run("overfit.budget.max_seconds=0.001"),
        {
            "objective": "cut short by max_seconds",
            **dict.fromkeys(("camera", "depth", "monotonic", "train_val", "prediction"), "not judged: see objective"),
        },
        green=(*STAGES, RUN, "supervised", "constant_batch", "finite", "gradients", "defects"),
    )


def test_an_augmenting_loader_is_caught(victim: Victim) -> None:
    """A real DataLoader over a dataset that jitters its images: the key and the size of the change are named."""
    victim.pytester.makeconftest(
        """
        import pytest, torch

        class Jitter(torch.utils.data.Dataset):
            def __init__(self, inner): self.inner = inner
            def __len__(self): return len(self.inner)
            def __getitem__(self, index):
                sample = self.inner[index]
                noise = 0.1 * torch.rand_like(sample["images"])
                return {**sample, "images": (sample["images"] - noise).clamp(0, 1)}

        @pytest.fixture
        def overfit_loader(overfit_dataset):
            return torch.utils.data.DataLoader(Jitter(overfit_dataset), batch_size=1)
        """
    )
    result = victim.run()
    green = (*STAGES, RUN, *(name for name in CRITERIA if name != "constant_batch"))
    expect_red(result, {"constant_batch": "two draws differ: images:"}, green=green)
    result.stdout.fnmatch_lines(["constant_batch: two draws differ: images: * elements differ, by up to 0.*"])


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("common_config: {fix_img_num: -1, fix_aspect_ratio: 0.92}", "fix_img_num"),
        ("common_config: {fix_img_num: 2, fix_aspect_ratio: 0.92, augs: {scales: [0.8, 1.2]}}", "scales"),
        ("common_config: {fix_img_num: 2, fix_aspect_ratio: 0.92, augs: {color_jitter: {brightness: 0.5}}}", "jitter"),
    ],
)
def test_a_config_that_resamples_is_caught(victim: Victim, written: str, says: str) -> None:
    """The trainer would draw a new sample at every step, whatever the loader of the test does."""
    write_tiny(victim.pytester.path, replace=((SPLIT, written),))
    green = (*STAGES, RUN, *(name for name in CRITERIA if name != "constant_batch"))
    expect_red(victim.run(), {"constant_batch": says}, green=green)


def test_a_model_that_writes_into_its_input_is_caught(victim: Victim) -> None:
    """The batch at the end is not the batch of the start."""
    expect_red(
        victim.run(model="saboteurs.InPlace"),
        {"constant_batch": "the batch was changed during the run"},
        green=(*STAGES, RUN, *(name for name in CRITERIA if name != "constant_batch")),
    )


def test_the_dummy_batch_of_a_failed_load_passes_nothing(victim: Victim) -> None:
    """All zero, every loss exactly 0, as the original loader does it: no limit is green."""
    victim.pytester.makeconftest(
        """
        import pytest, torch
        from pytest_overfit.run.batch import map_tensors

        @pytest.fixture
        def overfit_loader(overfit_dataset):
            sample = next(iter(torch.utils.data.DataLoader(overfit_dataset)))
            return [map_tensors(torch.zeros_like, sample)]
        """
    )
    says = {"loader": "the dummy batch that a loader hands out after a failed load", **not_judged("loader")}
    expect_red(victim.run(SHORT), says, green=("config", "pair"))
    alone = ("--overfit-config", "tiny.yaml", "--deselect", "tiny.yaml::loader", f"--overfit-set={SHORT}")
    reports = reports_of(victim.pytester.runpytest_inprocess(*alone))
    for name, words in {
        "supervised": "frame 0 has 0 valid depth pixels of 2352",
        "objective": "objective is exactly 0 at every step and proves nothing",
        "camera": "loss_camera is exactly 0 at every step and proves nothing",
        "monotonic": "objective does not fall: 0 at the start, 0 at the end",
    }.items():
        assert words in reports[name].longreprtext


def test_a_loader_that_raises_shows_its_traceback_once(victim: Victim) -> None:
    """In the loader's own item; the run points there."""
    victim.pytester.makeconftest(
        """
        import pytest

        class Broken:
            def __iter__(self):
                raise ConnectionError("the bucket is gone")

        @pytest.fixture
        def overfit_loader():
            return Broken()
        """
    )
    result = victim.run()
    expect_red(
        result, {"loader": "ConnectionError: the bucket is gone", **not_judged("loader")}, green=("config", "pair")
    )
    assert result.outlines.count("E       ConnectionError: the bucket is gone") == 1


def test_an_empty_loader_is_named(victim: Victim) -> None:
    """No batch is no sample."""
    victim.pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_loader():\n    return []\n")
    expect_red(victim.run(), {"loader": "the loader gives no batch", **not_judged("loader")}, green=("config", "pair"))


def test_a_loss_that_falls_by_itself_is_found(victim: Victim) -> None:
    """Every limit is met by a factor that shrinks with the calls; the initial weights meet them too."""
    result = victim.run(loss="saboteurs.CountingLoss")
    report = reports_of(result)["supervised"]
    assert report.failed
    assert "objective falls without the weights: back at the initial weights it is" in report.longreprtext


def test_a_loss_that_reads_few_depths_is_found(victim: Victim) -> None:
    """The best half of the pixels is less than what is asked for here."""
    wanted = "+overfit.criteria.supervised={min_target_ratio: 0.6}"
    report = reports_of(victim.run(SHORT, wanted, "+loss.depth={valid_range: 0.5}"))["supervised"]
    assert report.failed
    assert "the loss reads little of depths: " in report.longreprtext


def test_a_step_is_probed_in_place_of_the_loss_beside_it(victim: Victim) -> None:
    """The step trains on a batch of its own: what it reports answers to nothing, and the loss has not fallen."""
    victim.pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def overfit_step(overfit_batch, overfit_loss):
            kept = dict(overfit_batch)

            def step(model, batch, optimizer):
                optimizer.zero_grad()
                terms = overfit_loss(model(images=kept["images"]), kept)
                terms["objective"].backward()
                optimizer.step()
                return terms

            return step
        """
    )
    report = reports_of(victim.run())["supervised"]
    assert report.failed
    assert "does not answer when depths change" in report.longreprtext
