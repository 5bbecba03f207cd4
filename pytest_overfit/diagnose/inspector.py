"""Looks into a run and writes down what it sees: the one place where evidence is gathered in order."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from pytest_overfit.diagnose.agreement import Agreement
from pytest_overfit.diagnose.evidence import Evidence, Probed, Unfollowed, fact_name
from pytest_overfit.diagnose.family import Family, Question
from pytest_overfit.diagnose.questions.alike import children_alike
from pytest_overfit.diagnose.questions.batch_numbers import conflicts, measure_batch, samples_of, shared_beginnings
from pytest_overfit.diagnose.questions.carried import measure_carried
from pytest_overfit.diagnose.questions.declared import compare_with_declared
from pytest_overfit.diagnose.questions.followed_terms import unfollowed_terms
from pytest_overfit.diagnose.questions.free_scales import measure_free_scale
from pytest_overfit.diagnose.questions.loss_floor import find_floor
from pytest_overfit.diagnose.questions.moves import measure_moves
from pytest_overfit.diagnose.questions.nonfinite import first_bad_operations
from pytest_overfit.diagnose.questions.objective_slopes import measure_agreement
from pytest_overfit.diagnose.questions.parameter_updates import TracedUpdate
from pytest_overfit.diagnose.questions.step_loss import loss_of
from pytest_overfit.diagnose.questions.term_reach import cuts_undone, reach_of
from pytest_overfit.diagnose.questions.trained_model import TrainedModel
from pytest_overfit.diagnose.rank import is_settled
from pytest_overfit.diagnose.step_trace import Counts, Cut, Group, Leaf, ParameterUpdate, Step
from pytest_overfit.diagnose.trials.candidates import make_trials
from pytest_overfit.errors.asking import Questions
from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.call_task import listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.isolation import restored_process
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.memory import bytes_of, fitting
from pytest_overfit.run.phases import PROBES
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.stack_lines import hung_in
from pytest_overfit.run.supervision_record import Supervision
from pytest_overfit.run.update import Again, Detached, Update
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


class RunInspector:
    """An ``Inspector`` of one run: afterwards ``evidence`` has what is known.

    Args:
        criteria: what is declared on purpose is not held against anybody.
        judge: findings of a record; trials are made only where one is missed.
        questions: asks everything, and keeps what could not be asked.
        seconds: the most seconds of the diagnosis of a failed run; None: three times the run
            with all its planned steps.
        applications: the families of causes of ours that a batch asks for beside those that every run has.
        custom: those of the user's own, and of installed packages.
    """

    def __init__(
        self,
        criteria: Criteria,
        judge: Judge,
        questions: Questions,
        *,
        seconds: float | None = None,
        applications: Callable[[Any], Sequence[Family]] = lambda batch: (),
        custom: Sequence[Family] = (),
    ) -> None:
        self.criteria, self.judge, self.questions, self.seconds = criteria, judge, questions, seconds
        self.applications_of, self.custom = applications, custom
        self.applications: Sequence[Family] = ()
        self.evidence: Evidence | None = None
        self.probed = Probed()
        self.hung = False
        self.traced: TracedUpdate | None = None
        self.samples: int | None = None
        self.alike: tuple[str, ...] = ()
        self.leaves: tuple[Leaf, ...] = ()
        self.moves: tuple[Any, ...] = ()
        self.groups: tuple[Group, ...] = ()
        self.updates: tuple[ParameterUpdate, ...] = ()
        self.outputs: Mapping[str, Tensor] = {}
        self.interrupted, self.cut = False, ""

    def before(self, context: RunContext) -> None:
        self.context, ask = context, self.questions.ask
        self.applications = ask("what the batch is of", lambda: self.applications_of(context.task.batch), otherwise=())
        self.samples = ask("the samples of the batch", lambda: samples_of(context.task.batch), otherwise=None)
        self.alike = ask("modules that start alike", lambda: children_alike(context.task.model), otherwise=())

    def watch(self, update: Update) -> Update:
        self.traced = self.questions.ask(
            "the first steps", lambda: TracedUpdate(update, self.context, self.samples, self.questions), otherwise=None
        )
        return update if self.traced is None else self.traced

    def trained(self, context: RunContext, curves: Curves) -> None:
        """Asks the trained model; where it is not finite any more, the one of the start."""
        if (traced := self.traced) is not None:
            self.groups = self.questions.ask("the parameter groups", traced.parameter_groups, otherwise=())
            self.updates = self.questions.ask("how parameters moved", traced.parameter_updates, otherwise=())
            graph, trained = traced.tracer.graph, context.task.model
            self.leaves = self.questions.ask("leaves that are nobody's", lambda: graph.leaves(trained), otherwise=())
            if self.alike:
                same = self.questions.ask("modules that stay alike", lambda: children_alike(trained), otherwise=())
                self.alike = tuple(name for name in self.alike if name in same)
        finite = curves.non_finite is None
        seconds = self._limit(context, curves.seconds * max(1.0, context.plan.max_steps / max(1, len(curves.steps))))
        self.until = time.perf_counter() + seconds

        model, ask = TrainedModel(context, self.traced, self.samples, self.questions), self.questions.ask

        def look() -> None:
            if traced is not None:
                question, steps = "what moves without a gradient", len(curves.steps)
                self.moves = (ask(question, lambda: measure_moves(context, traced, steps), otherwise=None),)
            if not finite:
                context.start.restore()
            model.ask(curves)
            declared = ask(
                "what the model declares",
                lambda: compare_with_declared(context, frozen=bool(self.criteria.frozen)),
                otherwise=None,
            )
            carried = partial(measure_carried, context) if model.carries else lambda: None
            through = traced is not None and traced.tracer.graph.passes_through
            self.moves = (
                *self.moves,
                declared,
                ask("what the model keeps from call to call", carried, otherwise=None),
                *model.back,
                model.withheld,
                None if traced is None else traced.coasting,
                None if through else ask("which modules each term reaches", partial(reach_of, context), otherwise=None),
                ask("whether scalars alone bring the loss down", partial(measure_free_scale, context), otherwise=None),
            )

        # Asking updates nothing; going back to the start does, and a step of the user's may move a schedule on.
        self._aside(context, look, seconds, optimizers=not finite or context.step is not None)
        self.probed = model.found
        self.outputs = model.outputs if self._further() else {}

    def after(self, context: RunContext, record: RunRecord) -> None:
        findings = self.judge(record)
        declared, batch, ask = self.criteria, context.task.batch, self.questions.ask
        inputs, targets = _roles(record.supervision)
        self.probed = replace(
            self.probed,
            tensors=ask("the numbers of the batch", lambda: measure_batch(batch, inputs, targets), otherwise=()),
            repeated=ask(
                "samples that contradict each other", lambda: conflicts(batch, inputs, self.samples), otherwise={}
            ),
            beginnings=ask("rows that begin alike", lambda: shared_beginnings(batch, inputs), otherwise=None)
            if any(finding.missed for finding in findings)
            else None,
            samples=self.samples,
            unfollowed=ask("what follows each term", lambda: self._unfollowed(context, record), otherwise=()),
        )
        self.evidence = Evidence(
            record=record,
            findings=findings,
            limits=context.plan.limits,
            steps=() if self.traced is None else tuple(self.traced.steps),
            groups=self.groups,
            updates=self.updates,
            own_loads={} if self.traced is None else dict(self.traced.own_loads),
            counts=Counts() if self.traced is None else Counts(**self.traced.tally),
            alike=self.alike,
            leaves=self.leaves,
            probed=self.probed,
            facts=self._facts(context),
            own_step=context.step is not None,
            unused=declared.unused,
            frozen=declared.frozen,
            stochastic=declared.stochastic,
            interrupted=self.interrupted,
        )
        if self.evidence.passed or self.interrupted or self.hung:
            return
        limited = self.seconds is None and context.watchdog.left() is not None
        until = self.until if limited else time.perf_counter() + self._limit(context, _whole_seconds(record))
        left = max(0.0, until - time.perf_counter())
        kept = context.request.settings.keep_trained  # else the start comes back, and nothing is read of the end
        self._aside(context, lambda: self._search(context, record, until), left, model=kept, optimizers=kept)
        self.evidence = replace(self.evidence, interrupted=self.interrupted)

    def _unfollowed(self, context: RunContext, record: RunRecord) -> tuple[Unfollowed, ...]:
        """What a step differentiates and throws away; not of one that raised or hung."""
        several = len(context.optimizers) > 1 and record.stop in ("passed", "max_steps")
        return unfollowed_terms(context) if several and not self.hung else ()

    def _further(self) -> list[Question]:
        return [question for family in (*self.applications, *self.custom) for question in family.questions]

    def _facts(self, context: RunContext) -> Mapping[str, Any]:
        """The answers to the questions of applications and of others, by ``fact_name``."""
        ask, outputs = self.questions.ask, self.outputs
        answers = [ask(each.name, partial(each.ask, context, outputs), otherwise=None) for each in self._further()]
        self.outputs = {}
        return {fact_name(type(answer)): answer for answer in (*self.moves, *answers) if answer is not None}

    def _aside(
        self, context: RunContext, look: Callable[[], None], seconds: float, *, optimizers: bool, model: bool = True
    ) -> None:
        """Looks for so many seconds, and puts the state back as it is now; what raises or hangs ends the look alone."""
        try:
            with self.questions.asking("the diagnosis"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fitting(_taken_aside(context, model=model, optimizers=optimizers))
                now = Snapshot()
                for thing in (*((context.task.model,) if model else ()), *(context.optimizers if optimizers else ())):
                    now.add(thing)
                if optimizers:
                    now.add_reachable(*context.callables)
                with bench_aside(context, now), self._limited(context, seconds):
                    look()
        except Hung as hung:
            self._out_of_time(hung)
        except KeyboardInterrupt:
            self.interrupted, self.cut = True, "the run was interrupted"
            self.questions.leave_out("the rest of the diagnosis", "interrupted")

    def _limit(self, context: RunContext, whole: float) -> float:
        """The seconds of the diagnosis of a run that takes so many with all its steps."""
        if self.seconds is not None:
            return self.seconds
        own, left = max(LEAST_SECONDS, 3 * whole), context.watchdog.left()
        return own if left is None else min(own, max(LEAST_LIMITED, left))

    def _limited(self, context: RunContext, seconds: float) -> contextlib.AbstractContextManager[None]:
        stated = self.seconds is not None or context.watchdog.left() is not None
        return context.watchdog.limited(seconds, what=PROBES, grace=HUNG_SECONDS if stated else PATIENT_SECONDS)

    def _out_of_time(self, hung: Hung) -> None:
        self.hung, self.cut = True, f"out of time ({hung.hang.doing}{hung_in(hung.hang.where)})"
        self.questions.leave_out("the rest of the diagnosis", self.cut)

    def _search(self, context: RunContext, record: RunRecord, until: float) -> None:
        """What only a failed run is worth: where it stopped being finite, the floor of its loss, and trials."""
        assert self.evidence is not None
        ask = self.questions.ask
        steps = ask("the first step once more", lambda: self._first_step_again(context), otherwise=self.evidence.steps)
        if steps and steps[0].cuts:
            cuts = ask("which of the cuts counts", lambda: self._cuts(context, steps[0].cuts), otherwise=steps[0].cuts)
            steps = (replace(steps[0], cuts=cuts), *steps[1:])
        self.evidence = evidence = replace(self.evidence, steps=steps)
        seen, huge = (None, None) if self.traced is None else (self.traced.first_bad, self.traced.huge)
        if record.non_finite is not None:
            question = "where the first NaN or infinity arose"
            bad, gradient = ask(
                question,
                lambda: first_bad_operations(context, record, seen, until, self.questions),
                otherwise=(seen, None),
            )
            self.probed = replace(self.probed, first_bad=bad, bad_gradient=gradient, huge=huge)
        elif loss_of(context) is not None:
            context.tell(PROBES, "the floor of the loss", until - time.perf_counter())
            floor = ask("the floor of the loss", lambda: self._floor(context, until), otherwise=None)
            question = "whether gradients are those of the reported objective at the start"
            slopes = self.probed.agreement_at_start or ask(question, lambda: self._slopes(context), otherwise=None)
            self.probed = replace(self.probed, floor=floor, agreement_at_start=slopes)
        self.evidence = replace(evidence, probed=self.probed)

        missed = ("max_steps", "max_seconds", "non_finite")  # else the limits were met, or nothing can be trained
        if record.stop in missed:
            known = is_settled(self.evidence, (*self.applications, *self.custom), self.criteria.allow)
            learned, asked = partial(setattr, self, "evidence"), self.questions
            make_trials(context, self.evidence, until=until, learned=learned, questions=asked, settled=known)

    def _first_step_again(self, context: RunContext) -> tuple[Step, ...]:
        """The steps that were seen, the first of them looked at thoroughly."""
        seen = () if self.traced is None else tuple(self.traced.steps)
        with context.at_start():
            update = Again(context.update(context.task, context.new_watch()))
            again = TracedUpdate(update, context, self.samples, self.questions, thorough=True)
            with contextlib.suppress(Detached), again.running():
                again(0, look=True, observe=False)
        if not again.steps:
            return seen
        if self.traced is not None:
            self.traced.first_bad, self.traced.huge = again.first_bad, again.huge
        return (*again.steps, *seen[1:])

    def _cuts(self, context: RunContext, cuts: tuple[Cut, ...]) -> tuple[Cut, ...]:
        with context.at_start():
            return cuts_undone(context, cuts)

    def _slopes(self, context: RunContext) -> Agreement:
        with context.at_start():
            return measure_agreement(context, self.samples, thorough=True)

    def _floor(self, context: RunContext, until: float) -> Any:
        limit = self.evidence.limit_of_objective() if self.evidence else None
        curve = self.evidence.objective if self.evidence else ()
        targets = [t for t in self.probed.tensors if t.is_target and t.dtype.startswith("float")]
        with context.at_start():
            return find_floor(
                loss_of(context), listened_to(getattr(context.task, "given", context.task.model)),
                limit=limit,
                seconds=max(0.5, min(8.0, 0.3 * (until - time.perf_counter()))),
                scales={math.prod(t.shape): min(max(1.0, abs(t.mean) + t.deviation), 1e6) for t in targets},
                ran=min(curve, default=math.inf),
                standing=[output.name for output in self.probed.outputs if not output.final],
            )  # fmt: skip


def _taken_aside(context: RunContext, *, model: bool, optimizers: bool) -> int:
    """The bytes of the state that is put back after a look."""
    trained = context.task.model
    held = [*trained.parameters(), *trained.buffers()] if model else []
    states = [state for each in context.optimizers for state in each.state.values()] if optimizers else []
    return bytes_of([*held, *(value for state in states for value in state.values() if isinstance(value, Tensor))])


def _roles(supervision: Supervision | None) -> tuple[set[str], set[str]]:
    """Which tensors of the batch are inputs, and which targets."""
    if supervision is None:
        return set(), set()
    inputs = set(supervision.inputs)
    answering = {key for key in supervision.answers if key not in supervision.unread}
    return inputs, (answering | set(supervision.targets)) - inputs


@contextlib.contextmanager
def bench_aside(context: RunContext, now: Snapshot) -> Iterator[None]:
    """The state as it is now, and the random generators, come back after the block."""
    with restored_process():
        try:
            yield
        finally:
            context.task.heard.clear()
            now.restore()
