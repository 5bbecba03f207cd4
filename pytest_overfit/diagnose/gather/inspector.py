"""Looks into a run and writes down what it sees: the one place where evidence is gathered in order."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.config.criteria import Criteria
from pytest_overfit.data.batch import named_tensors
from pytest_overfit.data.elements import is_dense, numbers_of
from pytest_overfit.diagnose.evidence import Evidence, Probed, Step
from pytest_overfit.diagnose.gather import modes
from pytest_overfit.diagnose.gather.batch import conflicts, look_at_batch, samples_of
from pytest_overfit.diagnose.gather.capture import StepTask
from pytest_overfit.diagnose.gather.dependence import ask, evaluating_mode, with_answers
from pytest_overfit.diagnose.gather.floor import find_floor
from pytest_overfit.diagnose.gather.geometry import look_at_predictions, look_at_views
from pytest_overfit.diagnose.gather.nonfinite import locate
from pytest_overfit.diagnose.gather.outputs import look_at_outputs
from pytest_overfit.diagnose.gather.pairing import as_they_are, look_at_pairing
from pytest_overfit.diagnose.gather.roots import RootCall, root_calls
from pytest_overfit.diagnose.gather.schedule import make_trials
from pytest_overfit.diagnose.gather.tensors import is_real
from pytest_overfit.diagnose.gather.terms import count_unread_samples, look_at_terms, reads_weights_alone
from pytest_overfit.diagnose.gather.watch import Watched, children_alike
from pytest_overfit.diagnose.gather.xray import XRay
from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.bench import Bench
from pytest_overfit.run.call import listened_to
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.phases import PROBES
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.task import Heard, Terms
from pytest_overfit.run.update import Detached, Update, into_training
from pytest_overfit.run.watch import GradientWatch

Judge = Callable[[RunRecord], tuple[Finding, ...]]
LEAST_SECONDS = 2.0  # of a diagnosis: a run that ends at its first step would leave no time at all


def _whole_seconds(record: RunRecord) -> float:
    """What the run takes with all its steps: one that ends early leaves as much time to say why."""
    return record.seconds * max(1.0, record.planned_steps / max(1, record.steps))


class Inspected:
    """An ``Inspector`` of one run: afterwards ``evidence`` has what is known.

    Args:
        criteria: what is declared on purpose is not held against anybody.
        judge: findings of a record; trials are made only where one is missed.
        seconds: the most seconds of the diagnosis of a failed run; None: three times the run
            with all its planned steps.
    """

    def __init__(self, criteria: Criteria, judge: Judge, *, seconds: float | None = None) -> None:
        self.criteria, self.judge, self.seconds = criteria, judge, seconds
        self.evidence: Evidence | None = None
        self.probed = self.found = Probed()
        self.watched: Watched | None = None
        self.alike: tuple[str, ...] = ()
        self.targets: list[Tensor] = []

    def before(self, bench: Bench) -> None:
        self.bench, self.samples = bench, samples_of(bench.task.batch)
        self.alike = children_alike(bench.task.model)

    def watch(self, update: Update) -> Update:
        self.watched = Watched(update, self.bench, self.samples)
        return self.watched

    def trained(self, bench: Bench, curves: Curves) -> None:
        """Asks the trained model; where it is not finite any more, the one of the start."""
        assert self.watched is not None
        self.groups, self.moves = self.watched.as_groups(), self.watched.as_moves()
        now = Snapshot()
        now.add(bench.task.model)
        finite = curves.non_finite is None
        for optimizer in () if finite else bench.optimizers:  # asking updates nothing, going back to the start does
            now.add(optimizer)
        with bench_aside(bench, now), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not finite:
                bench.start.restore()
            self.probed = self._ask(bench, curves)

    def after(self, bench: Bench, record: RunRecord) -> None:
        assert self.watched is not None
        findings = self.judge(record)
        declared = self.criteria
        supervision = record.supervision
        inputs = set(supervision.inputs) if supervision else set()
        targets = {
            k
            for k in (supervision.answers if supervision else ())
            if k not in inputs and k not in (supervision.unread if supervision else ())
        }
        targets |= set(supervision.targets) - inputs if supervision else set()
        batch = bench.task.batch
        self.probed = replace(
            self.probed,
            tensors=look_at_batch(batch, inputs, targets),
            repeated=conflicts(batch, inputs, self.samples),
            samples=self.samples,
        )
        self.evidence = Evidence(
            record=record,
            findings=findings,
            limits=bench.plan.limits,
            steps=tuple(self.watched.steps),
            groups=self.groups,
            moves=self.moves,
            counts=self.watched.counts,
            alike=self.alike,
            probed=self.probed,
            views=_quietly(lambda: look_at_views(batch)),
            predicted=self.predicted,
            own_step=bench.step is not None,
            unused=declared.unused,
            frozen=declared.frozen,
            stochastic=declared.stochastic,
        )
        if self.evidence.passed:
            return
        until = time.perf_counter() + (
            self.seconds if self.seconds is not None else max(LEAST_SECONDS, 3 * _whole_seconds(record))
        )
        now = Snapshot()
        now.add(bench.task.model)
        for optimizer in bench.optimizers:
            now.add(optimizer)
        try:
            with bench_aside(bench, now), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._search(bench, record, until)
        except KeyboardInterrupt:
            self.evidence = replace(self.evidence, interrupted=True)

    def _search(self, bench: Bench, record: RunRecord, until: float) -> None:
        """What only a failed run is worth: where it stopped being finite, the floor of its loss, and trials."""
        assert self.evidence is not None
        assert self.watched is not None
        self.evidence = evidence = replace(self.evidence, steps=self._first_step_again(bench))
        if record.non_finite is not None:
            bad, gradient = locate(bench, record, self.watched.first_bad, until)
            self.probed = replace(self.probed, first_bad=bad, bad_gradient=gradient, huge=self.watched.huge)
        elif self.bench_loss(bench) is not None:
            bench.tell(PROBES, "the floor of the loss", until - time.perf_counter())
            self.probed = replace(self.probed, floor=_quietly(lambda: self._floor(bench, until)))
        self.evidence = replace(evidence, probed=self.probed)

        def learned(found: Evidence) -> None:
            self.evidence = found

        missed = ("max_steps", "max_seconds", "non_finite")  # else the limits were met, or nothing can be trained
        if record.stop in missed:
            make_trials(bench, self.evidence, until=until, learned=learned)

    def _first_step_again(self, bench: Bench) -> tuple[Step, ...]:
        """The steps that were seen, the first of them looked at thoroughly."""
        assert self.watched is not None
        again: Watched | None = None
        with contextlib.suppress(Exception, Detached), bench.at_start():
            update = bench.update(bench.task, GradientWatch(bench.task.model))
            again = Watched(update, bench, self.samples, thorough=True)
            with again.running():
                again(0, look=True, observe=False)
        if again is None or not again.steps:
            return tuple(self.watched.steps)
        self.watched.first_bad, self.watched.huge = again.first_bad, again.huge
        return (*again.steps, *self.watched.steps[1:])

    def bench_loss(self, bench: Bench) -> Any:
        return bench.task if bench.task.repeatable else (StepTask(bench.task, bench.step) if bench.step else None)

    def _floor(self, bench: Bench, until: float) -> Any:
        limit = self.evidence.limit_of_objective() if self.evidence else None
        seconds = max(0.5, min(4.0, 0.3 * (until - time.perf_counter())))
        targets = [t for t in self.probed.tensors if t.is_target and t.dtype.startswith("float")]
        scale = max([1.0, *(abs(t.mean) + t.deviation for t in targets)])
        with bench.at_start():
            task = self.bench_loss(bench)
            return find_floor(
                task,
                listened_to(getattr(bench.task, "given", bench.task.model)),
                limit=limit,
                seconds=seconds,
                scale=min(scale, 1e6),
            )

    def _ask(self, bench: Bench, curves: Curves) -> Probed:
        """Everything that one forward pass in training mode shows, and what the model answers in evaluation mode."""
        self.predicted, self.found = None, Probed()
        task = self.bench_loss(bench)
        if task is None:
            return self.found
        calls = self._forward(bench, bench.on(task), curves)
        self._ask_models(bench.task.model, calls)
        if self.reordered or not as_they_are(bench.task.batch, calls, self.targets, self.found.mixed):
            paired, output = self._pairing(bench.on(task))
            self._know(paired=paired, mispaired=output)
        return modes.look(bench, task, self.found, calls, curves)

    def _know(self, **answers: Any) -> None:
        """Keeps what was answered: of a probe that breaks off the rest still counts."""
        self.found = replace(self.found, **answers)

    def _forward(self, bench: Bench, on: Bench, curves: Curves) -> list[RootCall]:
        """One forward pass and the loss, closely watched where that pays; the calls of the models in it."""
        named = listened_to(getattr(bench.task, "given", bench.task.model))
        xray = XRay(bench.task.model, bench.task.batch, self.samples)
        into_training(bench.task.model)
        seed_everything(bench.seed)
        first = self.watched.steps[0].ops if self.watched is not None and self.watched.steps else ()
        weighed = any(op.name in ("attention", "softmax") for op in first)
        closely = curves.stop != "passed" or weighed or not first
        watching = (
            xray.watching(bench.optimizers, modules=curves.stop != "passed", checked=False)
            if closely
            else contextlib.nullcontext()
        )
        calls: list[RootCall] = []
        with contextlib.suppress(Exception), root_calls(named, calls), watching:
            heard, terms = on.forward()
            self._know(modules=tuple(xray.modules), ops=tuple(xray.ops) if closely else first)
            self.targets = xray.targets or (self.watched.targets if self.watched is not None else [])
            gated = xray.parameters if any(op.name == "argmax" for op in first) else {}
            self._ask_loss(on, heard, terms, gated, calls)
        return calls

    def _ask_loss(self, on: Bench, heard: Heard, terms: Terms, gated: Mapping[int, str], calls: list[RootCall]) -> None:
        """What of the outputs, of the samples and of the weights the loss reads."""
        batch = on.task.batch
        looked, gradients = look_at_terms(heard, terms, gated)
        self._know(
            terms=looked,
            outputs=look_at_outputs(heard, gradients, self.samples),
            training=float(terms["objective"].detach()),
        )
        if not gradients and heard:
            learning = [p for p in on.task.model.parameters() if p.requires_grad]
            self._know(weights_alone=reads_weights_alone(on.forward, batch, learning))
        passed_on = _passed_on(batch, calls)
        self._know(unread_samples=count_unread_samples(on.forward, batch, heard, gradients, self.samples, passed_on))
        self.predicted = _quietly(lambda: look_at_predictions({name: tensor.detach() for name, tensor in heard}, batch))

    def _ask_models(self, model: nn.Module, calls: list[RootCall]) -> None:
        """What the outputs of every model depend on, and the range of what it is given."""
        wide = any(isinstance(m, nn.Linear) and m.out_features == self.samples for m in model.modules())
        shapes = [shape for op in self.found.ops for shape in op.shapes if len(shape) >= 2]
        squares = any(shape[-1] == shape[-2] == self.samples for shape in shapes)
        pairwise = self.samples is not None and not wide and squares
        answers = []
        for call in calls:
            with evaluating_mode(call.module), contextlib.suppress(Exception):
                answers.append(ask(call, samples=self.samples, targets=self.targets, pairwise=pairwise))
        self.found = with_answers(self.found, answers, calls)
        self._know(
            arguments=tuple(
                (name, float(tensor.detach().min()), float(tensor.detach().max()))
                for call in calls
                for name, tensor in call.arguments()
                if is_real(tensor) and tensor.numel()
            )
        )

    @property
    def reordered(self) -> bool:
        return self.watched is not None and self.watched.xray.reordered

    def _pairing(self, on: Bench) -> tuple[bool | None, str]:
        def forward(batch: Any) -> tuple[Heard, Terms]:
            seed_everything(on.seed)
            return on.forward(batch)

        with evaluating_mode(on.task.model), contextlib.suppress(Exception):
            return look_at_pairing(forward, on.task.batch, self.samples)
        return None, ""


def _passed_on(batch: Any, calls: list[RootCall]) -> set[int]:
    """The ids of the tensors of the batch that were passed to a model, as they are."""
    given = [tensor for call in calls for _, tensor in call.arguments()]
    return {
        id(tensor)
        for _, tensor in named_tensors(batch)
        if is_dense(tensor)
        and (numbers := numbers_of(tensor)) is not None
        and any(numbers.shape == t.shape and torch.equal(numbers.to(t), t) for t in given)
    }


@contextlib.contextmanager
def bench_aside(bench: Bench, now: Snapshot) -> Any:
    """The state as it is now, and the random generators, come back after the block."""
    from pytest_overfit.run.isolation import restored_process

    with restored_process():
        try:
            yield
        finally:
            bench.task.heard.clear()
            now.restore()


def _quietly(look: Callable[[], Any]) -> Any:
    """None where a look is not possible: what a user's model refuses is no finding."""
    try:
        return look()
    except Exception:
        return None
