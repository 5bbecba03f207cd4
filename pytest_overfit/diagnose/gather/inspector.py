"""Looks into a run and writes down what it sees: the one place where evidence is gathered in order."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Evidence, Group, Moves, Probed, Step, Term
from pytest_overfit.diagnose.gather import modes
from pytest_overfit.diagnose.gather.batch import conflicts, look_at_batch, samples_of
from pytest_overfit.diagnose.gather.capture import StepTask
from pytest_overfit.diagnose.gather.dependence import Dependence, depend, evaluating_mode, with_answers
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
from pytest_overfit.diagnose.views import ViewsPredicted
from pytest_overfit.errors.asking import Questions
from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.bench import Bench
from pytest_overfit.run.call import listened_to
from pytest_overfit.run.elements import is_dense, numbers_of
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.phases import PROBES
from pytest_overfit.run.record import RunRecord, Supervision
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.task import Heard, Terms
from pytest_overfit.run.update import Again, Detached, Update, into_training
from pytest_overfit.run.watch import GradientWatch
from pytest_overfit.run.watchdog import Hung
from pytest_overfit.settings.criteria import Criteria

Judge = Callable[[RunRecord], tuple[Finding, ...]]
LEAST_SECONDS = 2.0  # of a diagnosis: a run that ends at its first step would leave no time at all
LEAST_LIMITED = 1.0  # the same where the whole run has a limit, which it may have used up
HUNG_SECONDS = 1.0  # beyond a limit that somebody has stated, for what does not come back
PATIENT_SECONDS = 10.0  # the same where nobody has: a machine may be slow


def _whole_seconds(record: RunRecord) -> float:
    """What the run takes with all its steps: one that ends early leaves as much time to say why."""
    return record.seconds * max(1.0, record.planned_steps / max(1, record.steps))


class Inspected:
    """An ``Inspector`` of one run: afterwards ``evidence`` has what is known.

    Args:
        criteria: what is declared on purpose is not held against anybody.
        judge: findings of a record; trials are made only where one is missed.
        questions: asks everything, and keeps what could not be asked.
        seconds: the most seconds of the diagnosis of a failed run; None: three times the run
            with all its planned steps.
    """

    def __init__(self, criteria: Criteria, judge: Judge, questions: Questions, *, seconds: float | None = None) -> None:
        self.criteria, self.judge, self.questions, self.seconds = criteria, judge, questions, seconds
        self.evidence: Evidence | None = None
        self.probed = self.found = Probed()
        self.hung = False
        self.watched: Watched | None = None
        self.samples: int | None = None
        self.alike: tuple[str, ...] = ()
        self.groups: tuple[Group, ...] = ()
        self.moves: tuple[Moves, ...] = ()
        self.targets: list[Tensor] = []
        self.predicted: ViewsPredicted | None = None
        self.interrupted, self.cut = False, ""

    def before(self, bench: Bench) -> None:
        self.bench, ask = bench, self.questions.ask
        self.samples = ask("the samples of the batch", lambda: samples_of(bench.task.batch), otherwise=None)
        self.alike = ask("modules that start alike", lambda: children_alike(bench.task.model), otherwise=())

    def watch(self, update: Update) -> Update:
        self.watched = self.questions.ask(
            "the first steps", lambda: Watched(update, self.bench, self.samples, self.questions), otherwise=None
        )
        return update if self.watched is None else self.watched

    def trained(self, bench: Bench, curves: Curves) -> None:
        """Asks the trained model; where it is not finite any more, the one of the start."""
        if self.watched is not None:
            self.groups = self.questions.ask("the parameter groups", self.watched.as_groups, otherwise=())
            self.moves = self.questions.ask("how parameters moved", self.watched.as_moves, otherwise=())
        finite = curves.non_finite is None
        seconds = self._limit(bench, curves.seconds * max(1.0, bench.plan.max_steps / max(1, len(curves.steps))))
        self.until = time.perf_counter() + seconds

        def look() -> None:
            if not finite:
                bench.start.restore()
            self.found = self._ask(bench, curves)

        self._aside(bench, look, seconds, optimizers=not finite)  # asking updates nothing, going back to the start does
        self.probed = self.found

    def after(self, bench: Bench, record: RunRecord) -> None:
        findings = self.judge(record)
        declared, batch, ask = self.criteria, bench.task.batch, self.questions.ask
        inputs, targets = _roles(record.supervision)
        self.probed = replace(
            self.probed,
            tensors=ask("the numbers of the batch", lambda: look_at_batch(batch, inputs, targets), otherwise=()),
            repeated=ask(
                "samples that contradict each other", lambda: conflicts(batch, inputs, self.samples), otherwise={}
            ),
            samples=self.samples,
        )
        self.evidence = Evidence(
            record=record,
            findings=findings,
            limits=bench.plan.limits,
            steps=() if self.watched is None else tuple(self.watched.steps),
            groups=self.groups,
            moves=self.moves,
            counts={} if self.watched is None else self.watched.counts,
            alike=self.alike,
            probed=self.probed,
            views=ask("whether the views agree", lambda: look_at_views(batch), otherwise=None),
            predicted=self.predicted,
            own_step=bench.step is not None,
            unused=declared.unused,
            frozen=declared.frozen,
            stochastic=declared.stochastic,
            interrupted=self.interrupted,
        )
        if self.evidence.passed or self.interrupted or self.hung:
            return
        limited = self.seconds is None and bench.dog.left() is not None
        until = self.until if limited else time.perf_counter() + self._limit(bench, _whole_seconds(record))
        left = max(0.0, until - time.perf_counter())
        self._aside(bench, lambda: self._search(bench, record, until), left, optimizers=True)
        self.evidence = replace(self.evidence, interrupted=self.interrupted)

    def _aside(self, bench: Bench, look: Callable[[], None], seconds: float, *, optimizers: bool) -> None:
        """Looks for so many seconds, and puts the state back as it is now.

        Ctrl-C, code that does not come back, or a mistake of ours, ends the look alone.
        """
        try:
            with self.questions.asking("the diagnosis"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                now = Snapshot()
                for thing in (bench.task.model, *(bench.optimizers if optimizers else ())):
                    now.add(thing)
                with bench_aside(bench, now), self._limited(bench, seconds):
                    look()
        except Hung as hung:
            self._out_of_time(hung)
        except KeyboardInterrupt:
            self.interrupted, self.cut = True, "the run was interrupted"
            self.questions.leave_out("the rest of the diagnosis", "interrupted")

    def _limit(self, bench: Bench, whole: float) -> float:
        """The seconds of the diagnosis of a run that takes so many with all its steps."""
        if self.seconds is not None:
            return self.seconds
        own, left = max(LEAST_SECONDS, 3 * whole), bench.dog.left()
        return own if left is None else min(own, max(LEAST_LIMITED, left))

    def _limited(self, bench: Bench, seconds: float) -> contextlib.AbstractContextManager[None]:
        stated = self.seconds is not None or bench.dog.left() is not None
        return bench.dog.limited(seconds, what=PROBES, grace=HUNG_SECONDS if stated else PATIENT_SECONDS)

    def _out_of_time(self, hung: Hung) -> None:
        self.hung, self.cut = True, f"out of time ({hung.hang.doing}, hung in {hung.hang.where})"
        self.questions.leave_out("the rest of the diagnosis", self.cut)

    def _search(self, bench: Bench, record: RunRecord, until: float) -> None:
        """What only a failed run is worth: where it stopped being finite, the floor of its loss, and trials."""
        assert self.evidence is not None
        ask = self.questions.ask
        steps = ask("the first step once more", lambda: self._first_step_again(bench), otherwise=self.evidence.steps)
        self.evidence = evidence = replace(self.evidence, steps=steps)
        seen, huge = (None, None) if self.watched is None else (self.watched.first_bad, self.watched.huge)
        if record.non_finite is not None:
            question = "where the first NaN or infinity arose"
            bad, gradient = ask(
                question, lambda: locate(bench, record, seen, until, self.questions), otherwise=(seen, None)
            )
            self.probed = replace(self.probed, first_bad=bad, bad_gradient=gradient, huge=huge)
        elif self.bench_loss(bench) is not None:
            bench.tell(PROBES, "the floor of the loss", until - time.perf_counter())
            floor = ask("the floor of the loss", lambda: self._floor(bench, until), otherwise=None)
            self.probed = replace(self.probed, floor=floor)
        self.evidence = replace(evidence, probed=self.probed)

        def learned(found: Evidence) -> None:
            self.evidence = found

        missed = ("max_steps", "max_seconds", "non_finite")  # else the limits were met, or nothing can be trained
        if record.stop in missed:
            make_trials(bench, self.evidence, until=until, learned=learned, questions=self.questions)

    def _first_step_again(self, bench: Bench) -> tuple[Step, ...]:
        """The steps that were seen, the first of them looked at thoroughly."""
        seen = () if self.watched is None else tuple(self.watched.steps)
        with bench.at_start():
            update = Again(bench.update(bench.task, GradientWatch(bench.task.model)))
            again = Watched(update, bench, self.samples, self.questions, thorough=True)
            with contextlib.suppress(Detached), again.running():
                again(0, look=True, observe=False)
        if not again.steps:
            return seen
        if self.watched is not None:
            self.watched.first_bad, self.watched.huge = again.first_bad, again.huge
        return (*again.steps, *seen[1:])

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
        self.found = Probed()
        task = self.bench_loss(bench)
        if task is None:
            self.questions.leave_out("everything about the trained model", "there is neither a loss nor a step to ask")
            return self.found
        calls = self._forward(bench, bench.on(task), curves)
        self._ask_models(bench.task.model, calls)
        with self.questions.asking("whether predictions and targets are of the same samples"):
            if self.reordered or not as_they_are(bench.task.batch, calls, self.targets, self.found.mixed):
                paired, output = self._pairing(bench.on(task))
                self._know(paired=paired, mispaired=output)
        return modes.look(bench, task, self.found, calls, curves, self.questions)

    def _know(self, **answers: Any) -> None:
        """Keeps what was answered: of a probe that breaks off the rest still counts."""
        self.found = replace(self.found, **answers)

    def _forward(self, bench: Bench, on: Bench, curves: Curves) -> list[RootCall]:
        """One forward pass and the loss, closely watched where that pays; the calls of the models in it."""
        named = listened_to(getattr(bench.task, "given", bench.task.model))
        xray = XRay(bench.task.model, bench.task.batch, self.samples, self.questions)
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
        with self.questions.asking("a forward pass of the trained model"), root_calls(named, calls), watching:
            heard, terms = on.forward()
            self._know(modules=tuple(xray.modules), ops=tuple(xray.ops) if closely else first)
            self.targets = xray.targets or (self.watched.targets if self.watched is not None else [])
            gated = xray.parameters if any(op.name == "argmax" for op in first) else {}
            self._ask_loss(on, heard, terms, gated, calls)
        return calls

    def _ask_loss(self, on: Bench, heard: Heard, terms: Terms, gated: Mapping[int, str], calls: list[RootCall]) -> None:
        """What of the outputs, of the samples and of the weights the loss reads."""
        batch, ask = on.task.batch, self.questions.ask
        self._know(training=float(terms["objective"].detach()))
        nothing: tuple[tuple[Term, ...], Mapping[str, Tensor]] = ((), {})
        looked, gradients = ask("the terms of the loss", lambda: look_at_terms(heard, terms, gated), otherwise=nothing)
        outputs = ask("the outputs", lambda: look_at_outputs(heard, gradients, self.samples), otherwise=())
        self._know(terms=looked, outputs=outputs)
        if not gradients and heard:
            learning = [p for p in on.task.model.parameters() if p.requires_grad]
            alone = ask(
                "a loss of the weights alone",
                lambda: reads_weights_alone(on.forward, batch, learning),
                otherwise=False,
            )
            self._know(weights_alone=alone)
        unread = ask(
            "samples that the loss leaves out",
            lambda: count_unread_samples(on.forward, batch, heard, gradients, self.samples, _passed_on(batch, calls)),
            otherwise=0,
        )
        self._know(unread_samples=unread)
        self.predicted = ask(
            "predictions against the views",
            lambda: look_at_predictions({name: tensor.detach() for name, tensor in heard}, batch),
            otherwise=None,
        )

    def _ask_models(self, model: nn.Module, calls: list[RootCall]) -> None:
        """What the outputs of every model depend on, and the range of what it is given."""
        wide = any(isinstance(m, nn.Linear) and m.out_features == self.samples for m in model.modules())
        shapes = [shape for op in self.found.ops for shape in op.shapes if len(shape) >= 2]
        squares = any(shape[-1] == shape[-2] == self.samples for shape in shapes)
        pairwise = self.samples is not None and not wide and squares
        answers = []
        for call in calls:
            answer = Dependence()
            with self.questions.asking(_of("what the outputs depend on", call)), evaluating_mode(call.module):
                answer = depend(
                    call, samples=self.samples, targets=self.targets, pairwise=pairwise, questions=self.questions
                )
            answers.append(answer)
        self.found = with_answers(self.found, answers, calls)
        with self.questions.asking("the range of the inputs"):
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

        with evaluating_mode(on.task.model):
            return look_at_pairing(forward, on.task.batch, self.samples)


def _of(question: str, call: RootCall) -> str:
    return f"{question} ({call.name})" if call.name else question


def _roles(supervision: Supervision | None) -> tuple[set[str], set[str]]:
    """Which tensors of the batch are inputs, and which targets."""
    if supervision is None:
        return set(), set()
    inputs = set(supervision.inputs)
    answering = {key for key in supervision.answers if key not in supervision.unread}
    return inputs, (answering | set(supervision.targets)) - inputs


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
def bench_aside(bench: Bench, now: Snapshot) -> Iterator[None]:
    """The state as it is now, and the random generators, come back after the block."""
    from pytest_overfit.run.isolation import restored_process

    with restored_process():
        try:
            yield
        finally:
            bench.task.heard.clear()
            now.restore()
