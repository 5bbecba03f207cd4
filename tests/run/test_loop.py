"""The bounded loop on a real two-view batch of a few pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.call_task import CallTask
from pytest_overfit.run.columns import count_held
from pytest_overfit.run.gradient_watch import GradientWatch
from pytest_overfit.run.loop import Curves, Plan, evaluate, fit
from pytest_overfit.run.observer import Observer, Pictures
from pytest_overfit.run.optim import GradientClipper, freeze
from pytest_overfit.run.task import Precision, scalar_terms
from pytest_overfit.run.update import PlainUpdate
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.trainer.config_subject import predict
from pytest_overfit.two_view.application import confidence_of
from pytest_overfit.two_view.reference.multitask_loss import MultitaskLoss
from tests.support.batches import two_view_batch
from tests.support.tiny import Memoriser, NanCamera


class Listener(Observer):
    """Writes down what a run tells."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.steps: list[int] = []
        self.val: list[int] = []
        self.numbers: list[tuple[int, Mapping[str, float]]] = []
        self.phases: list[tuple[str, str, float | None]] = []
        self.interrupt_at = interrupt_at

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        self.steps += range(first, first + len(rows))
        if self.interrupt_at is not None and self.steps[-1] >= self.interrupt_at:
            self.interrupt_at = None
            raise KeyboardInterrupt

    def on_val(self, step: int, terms: Mapping[str, float]) -> None:
        self.val.append(step)

    def on_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        self.numbers.append((step, numbers))

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        self.phases.append((name, detail, seconds_left))

    def on_pictures(self, pictures: Pictures) -> None:
        raise AssertionError("the loop itself shows no pictures")


def two_view_task(model: Memoriser, batch: Any, loss: Any = None, **rest: Any) -> CallTask:
    """A two-view model under a loss that takes its predictions."""
    return CallTask(model, model, loss or MultitaskLoss(), batch, torch.device("cpu"), predictor=predict, **rest)


def run(
    model: Memoriser | None = None, *, criterion: Any = None, observers: Sequence[Listener] = (), **changes: Any
) -> Curves:
    torch.manual_seed(0)
    net = model or Memoriser()
    batch = two_view_batch()
    task = two_view_task(net, batch, criterion or MultitaskLoss(), val_batch=batch)
    values: dict[str, Any] = {
        "max_steps": 40, "max_seconds": None, "hold_steps": 5, "limits": {"objective": Limit(0.01)}, "val_every": 10,
        "read_every": 5, "measure": confidence_of,
    }  # fmt: skip
    watch, optimizer = GradientWatch(net), torch.optim.AdamW(net.parameters(), lr=0.05)
    update = PlainUpdate(task, [optimizer], watch, clip=GradientClipper(net, ()), frozen=freeze(net, ()))
    return fit(task, update, Plan(**{**values, **changes}), watch=watch, observers=observers)


def test_every_step_is_written_down_once() -> None:
    """Bulk reads lose no step and repeat none, and observers see the same steps."""
    listener = Listener()
    curves = run(observers=[listener], limits={})
    assert len(curves.steps) == 40
    assert listener.steps == list(range(40))
    assert curves.stop == "max_steps"
    assert curves.steps[-1]["objective"] < curves.steps[0]["objective"]
    assert {"lr", "weight_decay", "grad_norm/trunk", "loss_camera"} <= curves.steps[0].keys()


@pytest.mark.parametrize("read_every", [1, 7, 100])
def test_the_reading_period_does_not_change_the_curve(read_every: int) -> None:
    """How often the host looks is no part of the training."""
    curves = run(read_every=read_every, limits={})
    assert [row["objective"] for row in curves.steps] == [row["objective"] for row in run(limits={}).steps]


@pytest.mark.parametrize("limit", [Limit(1.15), Limit(0.15, relative=True), Limit(1.2, window=4), Limit(-9)])
@pytest.mark.parametrize("hold", [1, 5, 12])
def test_steps_that_wait_to_be_written_down_change_no_verdict(limit: Limit, hold: int) -> None:
    """The run ends where it does when every read is written down at once, with the same rows."""
    asked: dict[str, Any] = {"limits": {"objective": limit}, "hold_steps": hold}
    at_once, later = run(**asked, waits=False), run(**asked)
    assert (later.stop, later.steps, later.val) == (at_once.stop, at_once.steps, at_once.val)


def test_limits_that_hold_end_the_run() -> None:
    """Early stop after hold_steps steps in a row."""
    curves = run(limits={"objective": Limit(100.0)}, hold_steps=8)
    assert curves.stop == "passed"
    assert len(curves.steps) == 10


def test_a_refused_outcome_lets_the_run_go_on() -> None:
    """Limits held, but evaluation mode or prediction did not agree."""
    asked: list[int] = []

    def accept(curves: Curves) -> bool:
        asked.append(len(curves.steps))
        return len(asked) == 3

    curves = run(limits={"objective": Limit(100.0)}, accept=accept)
    assert curves.stop == "passed"
    assert len(curves.steps) == asked[-1] > asked[0]


def test_the_clock_ends_a_run() -> None:
    """A budget of no seconds gives a partial record that says why."""
    curves = run(limits={}, max_seconds=0.0)
    assert curves.stop == "max_seconds"
    assert len(curves.steps) == 1


def test_an_interrupt_keeps_what_was_read() -> None:
    """Ctrl-C in the middle: the steps so far are there, and no error escapes."""
    curves = run(limits={}, observers=[Listener(interrupt_at=19)])
    assert curves.stop == "interrupted"
    assert 19 < len(curves.steps) < 40


def test_a_loop_that_loses_its_graph_keeps_what_was_not_read_yet() -> None:
    """Steps wait for the next look; the last ones are no exception."""

    def criterion(predictions: Any, batch: Any) -> Any:
        terms = MultitaskLoss()(predictions, batch)
        calls.append(1)
        return {name: term.detach() for name, term in terms.items()} if len(calls) > 18 else terms

    calls: list[int] = []
    curves = run(criterion=criterion, limits={}, read_every=25, val_every=10**9)
    assert curves.stop == "detached"
    assert len(curves.steps) == len(calls) - 2  # one validates, one has no graph


def test_a_nan_that_the_loss_hides_is_found_in_the_prediction() -> None:
    """The loss scrubs NaN to 0 and is finite; the raw prediction is looked at."""

    def scrubbing(predictions: Mapping[str, Any], batch: Mapping[str, Any]) -> Mapping[str, Any]:
        poses = [torch.nan_to_num(pose) for pose in predictions["pose_enc_list"]]
        terms: Mapping[str, Any] = MultitaskLoss()({**predictions, "pose_enc_list": poses}, batch)
        return terms

    curves = run(NanCamera(), criterion=scrubbing, limits={})
    assert curves.stop == "non_finite"
    assert curves.non_finite is not None
    assert curves.non_finite.step == 1
    assert curves.non_finite.what == "prediction pose_enc"
    assert curves.non_finite.module == "spoil (Spoil)"


def test_validation_happens_at_the_start_and_every_period() -> None:
    """Step 1, each period, and the end."""
    listener = Listener()
    run(observers=[listener], limits={})
    assert listener.val == [1, 10, 20, 30, 40]


def test_updates_are_measured_now_and_then_for_those_who_follow() -> None:
    """How far a few of the steps move each module group, and the confidence at every validation."""
    listener = Listener()
    curves = run(observers=[listener], limits={})
    updates = {step: numbers for step, numbers in listener.numbers if "update_norm/trunk" in numbers}
    assert list(updates) == [1, 3, 5, 10, 15, 20, 25]
    # AdamW's first step moves every element by the learning rate: 2 x 42 x 56 elements and 0.05
    assert updates[1]["update_norm/trunk"] == pytest.approx(0.05 * (2 * 42 * 56) ** 0.5, rel=0.01)
    assert set(updates[1]) == {"update_norm/trunk", "update_norm/confidence", "update_norm/camera_head"}
    confidences = {step: numbers for step, numbers in listener.numbers if "confidence/mean" in numbers}
    assert list(confidences) == listener.val
    assert set(confidences[1]) == {"confidence/mean", "confidence/min", "confidence/max"}
    assert all("update_norm/trunk" not in row for row in curves.steps)


def test_measuring_updates_changes_no_training() -> None:
    """The curve is the same, bit by bit, whether somebody follows or not."""
    assert run(observers=[Listener()], limits={}).steps == run(limits={}).steps


def test_evaluation_leaves_modes_alone() -> None:
    """Each module gets its own mode back."""
    net = Memoriser()
    net.camera_head.eval()
    batch = two_view_batch()
    task = two_view_task(net, batch)
    assert evaluate(task, batch)["objective"] > 0
    assert net.training
    assert not net.camera_head.training


def test_held_steps_are_counted_from_the_end() -> None:
    """Only the latest unbroken stretch counts, and every limit must hold."""
    rows = [{"objective": v, "loss_camera": c} for v, c in ((0.1, 0.1), (0.9, 0.1), (0.1, 0.1), (0.1, 0.1))]
    half = Limit(0.5)
    assert count_held(rows, {"objective": half}) == 2
    assert count_held(rows, {"objective": half, "camera": Limit(0.05)}) == 0
    assert count_held(rows, {"missing": half}) == 0
    assert count_held([], {"objective": half}) == 0


def test_held_steps_know_ratios_means_and_lower_limits() -> None:
    """A share of the start, a mean over the latest steps, and a term that has to rise."""
    rows = [{"objective": v, "accuracy": a} for v, a in ((4.0, 0.1), (0.1, 0.5), (0.3, 0.9), (0.1, 1.0))]
    assert count_held(rows, {"objective": Limit(0.05, relative=True)}) == 1
    assert count_held(rows, {"objective": Limit(0.06, window=2)}) == 0
    assert count_held(rows, {"objective": Limit(0.21, window=2)}) == 2
    assert count_held(rows, {"accuracy": Limit(above=0.8)}) == 2


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("x", "returned a str"),
        (torch.ones(2), "a tensor of shape"),
        (None, "returned nothing"),
        ({}, "no objective"),
        ({"loss_camera": 1}, "only loss_camera"),
    ],
)
def test_a_loss_without_an_objective_is_an_error(returned: Any, says: str) -> None:
    """The message shows what the loss gave."""
    with pytest.raises(OverfitError, match=says):
        scalar_terms(returned)


def test_the_objective_may_have_the_guides_name() -> None:
    """loss_objective and objective are the same thing."""
    terms = scalar_terms({"loss_objective": torch.tensor(2.0), "loss_camera": torch.tensor([1.0])})
    assert {name: float(value) for name, value in terms.items()} == {"objective": 2.0, "loss_camera": 1.0}


def test_float16_on_the_cpu_needs_no_scaler() -> None:
    """The scaler acts on CUDA alone and passes everything through elsewhere."""
    assert not Precision(True, torch.float16).scaler(torch.device("cpu")).is_enabled()


def test_bfloat16_predicts_in_float32() -> None:
    """The loss sees float32 whatever the forward pass ran in."""
    batch = two_view_batch()
    task = two_view_task(Memoriser(), batch, precision=Precision(True, torch.bfloat16))
    assert task.predict(batch)["pose_enc"].dtype is torch.float32
