"""Every feature of a run works for a call and under a config: one subject, two ways to ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitError, OverfitResult, run_config, run_overfit
from pytest_overfit.judge.train_val import TrainVal
from pytest_overfit.run.sample import Sample
from pytest_overfit.settings.criteria import Criteria, Limit
from pytest_overfit.settings.settings import Budget, ClipGroup, OverfitSettings
from pytest_overfit.trainer.config import OverfitConfig
from pytest_overfit.two_view.reference.multitask_loss import MultitaskLoss
from tests.support.batches import two_view_batch
from tests.support.tiny import Memoriser

STEPS = 12
World = Callable[..., OverfitResult]
Predictions = Mapping[str, Any]


def call(
    model: Any,
    *,
    loss: Any = None,
    data: Any = None,
    val: Any = None,
    schedules: Mapping[str, tuple[float, float]] | None = None,
    clip: Mapping[str, float] | None = None,
    freeze: tuple[str, ...] = (),
    terms: Mapping[str, float] | None = None,
    objective: float = 1e-9,
    train_val: bool = False,
    generates: bool = False,
    steps: int = STEPS,
) -> OverfitResult:
    """A call: keywords."""
    criterion = loss or MultitaskLoss()

    def of_batch(model: Any, batch: Any) -> Any:
        return criterion(model(images=batch["images"]), batch)

    ramps = {name: linear(*ends) for name, ends in (schedules or {}).items()}
    return run_overfit(
        model,
        two_view_batch() if data is None else data,
        None if loss == "own" else of_batch,
        optimizer=None if loss == "own" else lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.001),
        val_data=val,
        schedule=ramps or None,
        clip_grad_norm=clip,
        freeze=list(freeze) or None,
        train_val=train_val,
        generates=generates,
        objective=objective,
        max_steps=steps,
        hold_steps=1,
        criteria=terms,
        diagnose=False,
    )


def config(
    model: Any,
    *,
    loss: Any = None,
    data: Any = None,
    val: Any = None,
    schedules: Mapping[str, tuple[float, float]] | None = None,
    clip: Mapping[str, float] | None = None,
    freeze: tuple[str, ...] = (),
    terms: Mapping[str, float] | None = None,
    objective: float = 1e-9,
    train_val: bool = False,
    generates: bool = False,
    steps: int = STEPS,
) -> OverfitResult:
    """A config: its keys."""
    criteria = Criteria(
        objective=Limit(objective),
        camera=None,
        depth=None,
        prediction=None,
        terms={name: Limit(below) for name, below in (terms or {}).items()},
        train_val=TrainVal() if train_val else None,
        generates=generates,
    )
    overfit = OverfitSettings(
        device="cpu", threads="keep", diagnose=False, budget=Budget(max_steps=steps, hold_steps=1), criteria=criteria
    )
    named = {name: node(*ends) for name, ends in (schedules or {}).items()}
    built = OverfitConfig(
        path=Path("tiny.yaml").resolve(),
        exp_name="tiny",
        seed=0,
        optimizer={"_target_": "torch.optim.SGD", "lr": 0.01, "weight_decay": 0.001},
        frozen_module_names=freeze,
        gradient_clip=tuple(ClipGroup((name,), norm) for name, norm in (clip or {}).items()),
        lr_schedule=named.get("lr"),
        weight_decay_schedule=named.get("weight_decay"),
        overfit=overfit,
    )
    sample = Sample(two_view_batch() if data is None else data, val)
    return run_config(built, model, sample, loss=None if loss == "own" else loss)


WORLDS = {"call": call, "config": config}


@pytest.fixture(params=WORLDS, name="world")
def _world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]


def linear(start: float, end: float) -> Callable[[float], float]:
    return lambda progress: start + (end - start) * progress


def node(start: float, end: float) -> Mapping[str, Any]:
    return {"_target_": "fvcore.common.param_scheduler.LinearParamScheduler", "start_value": start, "end_value": end}


class Gap(Memoriser):
    """Depth is another one in evaluation mode."""

    def forward(self, images: Tensor) -> dict[str, Any]:
        predictions = super().forward(images)
        return {**predictions, "depth": predictions["depth"] * (1.0 if self.training else 1e4)}


class ZeroHead(nn.Module):
    """A head that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Predictions:
        return {"depth": (self.head * (1 + images.mean())).expand(1, 2, *images.shape[-2:])}


def test_a_validation_batch_is_looked_at(world: World) -> None:
    """At the first step and at the last, and after the run."""
    record = world(Memoriser(), val=two_view_batch()).record
    assert record.val_steps == (1, STEPS)
    assert set(record.val_curves) >= {"objective", "loss_camera"}
    assert record.evaluation is not None
    assert record.evaluation.train["objective"] == record.curves["objective"][-1]
    assert world(Memoriser()).record.val_steps == ()


@pytest.mark.parametrize(("model", "agrees"), [(Memoriser, True), (Gap, False)])
def test_training_is_compared_with_evaluation(world: World, model: type[Memoriser], agrees: bool) -> None:
    """A model that answers otherwise in evaluation mode is found, and goes on to the end."""
    result = world(model(), val=two_view_batch(), train_val=True, objective=100.0)
    assert result.finding("train_val").passed == agrees
    assert (result.record.stop == "passed") == agrees


def test_what_the_last_step_did_is_no_difference_of_modes() -> None:
    """Every step overshoots: its loss is told before it updates the weights, and evaluation comes after it."""

    def loss(model: nn.Linear, batch: Tensor) -> Tensor:
        return (model.weight - batch).square().mean()

    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.1)
    result = run_overfit(
        model, torch.ones(1, 1), loss, optimizer=lambda p: torch.optim.SGD(p, lr=1.1), val_data=torch.ones(1, 1),
        train_val=True, max_steps=8, objective=1e-6, diagnose=False,
    )  # fmt: skip
    evaluation = result.record.evaluation
    assert evaluation is not None
    assert evaluation.train == pytest.approx(evaluation.val)
    assert result.finding("train_val").passed
    assert not result.finding("objective").passed


def test_nothing_to_evaluate_on_is_an_error(world: World) -> None:
    """It says what is wanted."""
    with pytest.raises(OverfitError, match="nothing to evaluate on"):
        world(Memoriser(), train_val=True)


def test_schedules_of_learning_rate_and_weight_decay(world: World) -> None:
    """Each over the whole budget, and the run is another one than without."""
    result = world(Memoriser(), schedules={"lr": (0.02, 0.01), "weight_decay": (0.5, 0.25)})
    progress = [step / STEPS for step in range(STEPS)]
    assert result.record.learning_rate == pytest.approx([0.02 - 0.01 * at for at in progress])
    assert result.record.weight_decay == pytest.approx([0.5 - 0.25 * at for at in progress])
    plain = world(Memoriser()).record
    assert set(plain.learning_rate) == {0.01}
    assert plain.curves["objective"] != result.record.curves["objective"]


def test_gradients_are_clipped_by_module_group(world: World) -> None:
    """What a group may move in a step is its learning rate times its norm; the others go on as before."""
    moved, free = (
        {
            p.name: p.moved
            for p in world(Memoriser(), clip=clip, schedules={"weight_decay": (0.0, 0.0)}).record.parameters
        }
        for clip in ({"camera_head": 1e-4}, None)
    )
    assert 0 < moved["camera_head.weight"] <= 1.01 * STEPS * 0.01 * 1e-4 < free["camera_head.weight"]
    assert moved["trunk"] == pytest.approx(free["trunk"])


def test_a_closure_is_clipped_too() -> None:
    """What LBFGS is given."""
    moved = {
        norm: max(
            p.moved
            for p in run_overfit(
                nn.Linear(2, 1), (torch.ones(3, 2), torch.ones(3, 1)), F.mse_loss,
                optimizer=lambda p: torch.optim.LBFGS(p, lr=1.0, max_iter=1),
                max_steps=1, hold_steps=1, clip_grad_norm=norm, diagnose=False, supervised=False, seeds=0,
            ).record.parameters
        )
        for norm in (1e-4, None)
    }  # fmt: skip
    assert 0 < moved[1e-4] < 1e-3 < moved[None]


def test_a_step_of_its_own_clips_by_itself() -> None:
    """Asked to be clipped beside one, a run says how."""
    with pytest.raises(OverfitError, match="clipped beside a train step of its own") as error:
        run_overfit(Memoriser(), two_view_batch(), step=lambda model, batch: None, clip_grad_norm=1.0)
    assert "clip_grad_norm_(model.parameters(), max_norm) in the step" in str(error.value)


def test_modules_are_frozen_by_pattern(world: World) -> None:
    """They do not move, and the record says which pattern froze them; an unknown one is an error."""
    record = world(Memoriser(), freeze=("camera_*",)).record
    frozen = {p.name: p.frozen_by for p in record.parameters if not p.trainable}
    assert frozen == {"camera_head.weight": "camera_*", "camera_head.bias": "camera_*"}
    assert all((p.moved == 0) == (p.name in frozen) for p in record.parameters)
    assert [(match.pattern, match.tensors) for match in record.freeze_matches] == [("camera_*", 2)]
    with pytest.raises(OverfitError, match=r"'\*aggregator\*' matches no module"):
        world(Memoriser(), freeze=("*aggregator*",))


def test_a_stated_limit_on_no_term_is_an_error(world: World) -> None:
    """With the terms that there are."""
    with pytest.raises(OverfitError, match="the loss gives no term 'loss_camra'") as error:
        world(Memoriser(), terms={"loss_camra": 0.1})
    assert "did you mean 'loss_camera'?" in str(error.value)


def test_the_loss_is_asked_with_nudged_weights(world: World) -> None:
    """With a prediction of zero it would answer to no target."""

    def loss(predictions: Predictions, batch: Mapping[str, Tensor]) -> Tensor:
        error: Tensor = (predictions["depth"] * batch["depths"] - 1).square().mean()
        return error

    model = ZeroHead()
    supervision = world(model, loss=loss).record.supervision
    assert supervision is not None
    assert supervision.answers["depths"]["objective"] > 0
    assert model.head.item() == 0.0


def test_a_lightning_module_brings_its_own_step(world: World) -> None:
    """What it logs are terms; under a config its loss and optimizer are not the config's, and a note says so."""
    pytest.importorskip("pytorch_lightning")
    from pytorch_lightning import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Memoriser()

        def training_step(self, batch: Mapping[str, Tensor], index: int) -> Tensor:
            loss = F.l1_loss(self.inner(images=batch["images"])["depth"].squeeze(-1), batch["depths"])
            self.log("l1", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.inner.parameters(), lr=0.125)

    result = world(Module(), loss="own")
    assert list(result.record.curves) == ["objective", "l1"]
    assert set(result.record.learning_rate) == {0.125}
    told = any("are those of Module, not the config's" in note for note in result.record.notes)
    assert told == (world is config)


def tokens() -> dict[str, Tensor]:
    ids = torch.randint(2, 48, (2, 6), generator=torch.Generator().manual_seed(7))
    return {"input_ids": ids, "labels": ids}


@pytest.mark.filterwarnings("ignore")
def test_what_a_language_model_has_memorised_is_generated(world: World) -> None:
    """Asked once it is trained; a model that cannot generate is an error."""
    pytest.importorskip("transformers")
    from tests.integrations.huggingface_models import gpt2

    result = world(gpt2(), data=tokens(), loss="own", generates=True, steps=2)
    assert result.record.generated is not None
    assert result.record.generated.total == 10
    assert not result.finding("generates").passed
    with pytest.raises(OverfitError, match="cannot be asked to generate"):
        world(Memoriser(), generates=True)


@pytest.mark.filterwarnings("ignore")
def test_a_transformers_trainer_brings_its_own_step(world: World, tmp_path: Path) -> None:
    """Its optimizer and its schedule over the steps of the run."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from tests.integrations.huggingface_models import gpt2, trainer

    record = world(trainer(tmp_path, gpt2()), data=tokens(), loss="own", steps=3).record
    assert record.steps == 3
    assert record.learning_rate[0] > record.learning_rate[-1]
    assert list(record.curves) == ["objective"]


def test_both_worlds_train_alike() -> None:
    """Bit for bit the same curves of the same subject."""
    model = Memoriser()
    first, second = (of(model, val=two_view_batch()).record for of in (call, config))
    assert first.curves == second.curves
    assert first.val_curves == second.val_curves
    assert first.grad_norms["trunk"][0] == second.grad_norms["trunk"][0]
    assert first.parameters == second.parameters
