"""Every fixture can be overridden in a conftest, in every scope that makes sense."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import CRITERIA, ITEMS, STAGES, not_judged, outcomes, reports_of

GREEN = dict.fromkeys(ITEMS, "passed")
FAULTY = {"config": "failed", "pair": "passed", "loader": "passed"}  # the other items are skipped


@pytest.mark.parametrize(
    ("scope", "given"),
    [("function", "Mine()"), ("function", "Mine"), ("module", "lambda: Mine()"), ("session", "Mine()")],
)
def test_a_model_may_be_a_module_or_a_factory(
    pytester: pytest.Pytester, tiny: TinyConfig, scope: str, given: str
) -> None:
    """The config item says which class was built."""
    tiny()
    pytester.makeconftest(
        f"""
        import pytest
        from tests.support.tiny import Memoriser

        class Mine(Memoriser):
            pass

        @pytest.fixture(scope="{scope}")
        def overfit_model():
            return {given}
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "config or camera")
    result.assert_outcomes(passed=2, deselected=len(ITEMS) - 2)
    result.stdout.fnmatch_lines(["ok*config*Mine (4,742 trainable)*"])


def test_something_that_is_no_model_is_named(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Told by the config item; the run points there."""
    tiny()
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_model(): return 'vggt.pt'\n")
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml")
    reports = reports_of(result)
    assert reports["config"].longreprtext == (
        "config: a str where a model is wanted, allowed a torch.nn.Module, or a callable without arguments that "
        "returns one\n  where: overfit_model\n"
        "  next: change what is named there, or override its fixture in a conftest.py"
    )
    told = not_judged("config")
    assert all(words in reports[name].longreprtext for name, words in told.items())
    assert outcomes(result) == {**dict.fromkeys(ITEMS, "skipped"), **FAULTY}


def test_a_trained_model_comes_back_bit_for_bit(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Parameters, buffers, gradients, flags and modes, of a model that lives for the whole session."""
    tiny()
    pytester.makeconftest(
        """
        import pytest, torch
        from tests.support.tiny import Memoriser

        def state(model):
            return [(name, p.detach().clone(), p.requires_grad, p.grad) for name, p in model.named_parameters()]

        @pytest.fixture(scope="session")
        def overfit_model():
            model = Memoriser()
            model.camera_head.eval()
            model.confidence.grad = torch.full_like(model.confidence, 0.25)
            before = state(model)
            yield model
            for (name, value, flag, grad), now in zip(before, state(model), strict=True):
                assert torch.equal(value, now[1]), name
                assert (flag, grad is None) == (now[2], now[3] is None), name
            assert float(model.confidence.grad.sum()) == 0.5
            assert model.training and not model.camera_head.training
        """
    )
    assert outcomes(pytester.runpytest_inprocess("--overfit-config", "tiny.yaml")) == GREEN


@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_a_loader_of_ones_own(pytester: pytest.Pytester, tiny: TinyConfig, scope: str) -> None:
    """Any iterable of batches; here one that keeps its batch, in every scope."""
    tiny()
    pytester.makeconftest(
        f"""
        import pytest, torch
        from tests.support.batches import two_view_batch

        @pytest.fixture(scope="{scope}")
        def overfit_loader():
            batch = two_view_batch()
            batch["world_points"] = torch.ones(1, 2, 42, 56, 3)
            return [batch]

        @pytest.fixture
        def overfit_val_batch(overfit_batch):
            return overfit_batch
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml")
    assert outcomes(result) == GREEN
    result.stdout.fnmatch_lines(["ok*loader*images (1, 2, 3, 42, 56), 8 keys*"])


def test_a_batch_of_ones_own_is_what_is_trained_on(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Taken as it is: normalising it is the business of the override."""
    tiny()
    pytester.makeconftest(
        """
        import pytest
        from tests.support.batches import two_view_batch

        @pytest.fixture
        def overfit_batch():
            return {**two_view_batch(), "seq_name": ["mine"]}

        @pytest.fixture
        def overfit_val_batch(overfit_batch):
            return overfit_batch
        """
    )
    assert outcomes(pytester.runpytest_inprocess("--overfit-config", "tiny.yaml")) == GREEN


def test_a_loss_of_ones_own(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A plain function; its terms are those that can have limits."""
    tiny()
    pytester.makeconftest(
        """
        import pytest
        from pytest_overfit.two_view.reference.multitask_loss import MultitaskLoss

        @pytest.fixture
        def overfit_loss():
            inner = MultitaskLoss()

            def loss(predictions, batch):
                terms = inner(predictions, batch)
                return {"loss_objective": terms["objective"], "loss_mine": terms["loss_camera"]}

            return loss
        """
    )
    result = pytester.runpytest_inprocess(
        "--overfit-config", "tiny.yaml", "--overfit-set", "overfit.criteria.loss_mine=0.001",
        "--overfit-set", "overfit.criteria.camera=false", "--overfit-set", "overfit.criteria.depth=false",
    )  # fmt: skip
    expected = {name: "passed" for name in ITEMS if name not in ("camera", "depth")}
    assert outcomes(result) == {**expected, "loss_mine": "passed"}


def test_a_config_of_ones_own(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A fixture may change what the file says, say for a slow machine."""
    tiny()
    pytester.makeconftest(
        """
        import dataclasses, pytest

        @pytest.fixture
        def overfit_config(overfit_config):
            return dataclasses.replace(overfit_config, max_epochs=2)
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "camera")
    result.stdout.fnmatch_lines(["*step 40 of 40*"])


def test_a_dataset_of_ones_own(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The embedded loader takes any map-style dataset."""
    tiny()
    pytester.makeconftest(
        """
        import pytest

        class Wrapped:
            def __init__(self, inner): self.inner = inner
            def __len__(self): return len(self.inner)
            def __getitem__(self, index): return {**self.inner[index], "extra": index}

        @pytest.fixture
        def overfit_dataset(overfit_dataset):
            return Wrapped(overfit_dataset)
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml")
    assert outcomes(result) == GREEN
    result.stdout.fnmatch_lines(["ok*loader*10 keys*"])


def test_a_pair_of_ones_own(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A team's downloader in the place of the config's source."""
    tiny()
    pytester.makeconftest(
        """
        import pytest
        from pytest_overfit.two_view.pair.create import create_pair
        from pytest_overfit.two_view.pair.synthetic import render_source

        @pytest.fixture(scope="session")
        def overfit_pair(tmp_path_factory):
            folder = tmp_path_factory.mktemp("mine")
            source = render_source(folder / "source", seed=7, width=160, height=120)
            return create_pair(source.source_root, source.source_seg_root, source.source_npz, folder / "pair")
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "pair")
    result.assert_outcomes(passed=1, deselected=len(ITEMS) - 1)
    result.stdout.fnmatch_lines(["ok*pair*aerial_megadepth_0007_0: valid *"])


def test_an_override_that_skips_skips_what_needs_it(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A skip is explicit: neither green nor red."""
    tiny()
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_model(): pytest.skip('no weights here')\n")
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-rs")
    skipped = dict.fromkeys(("config", "run", *CRITERIA), "skipped")
    assert outcomes(result) == {**skipped, "pair": "passed", "loader": "passed"}
    assert len(STAGES) == 3
    result.stdout.fnmatch_lines(["SKIPPED * no weights here"])


def test_an_override_that_asks_for_an_unknown_fixture_is_an_error(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """pytest's own message, once; the others point there."""
    tiny()
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_model(wieghts): return None\n")
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml")
    assert outcomes(result) == {**dict.fromkeys(ITEMS, "skipped"), **FAULTY}
    assert sum(line.startswith("E") and "'wieghts' not found" in line for line in result.outlines) == 1
