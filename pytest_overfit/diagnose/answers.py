"""What was asked of a run, in one line per question: the answer in numbers of this run, or why there is none. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

QuestionName = Literal["depends", "moves", "agrees", "repeats", "reaches", "learns"]
NOT_NEEDED = "not needed: the cause is certain without a trial"
NOTHING_ASKED = "not asked: nothing of it could be measured here"
MOST_TRIALS = 6


@dataclass(frozen=True)
class Answer:
    """One question and its answer; ``asked`` is False where it has none, and ``answer`` says why.

    Example:
        >>> print(Answer("repeats", "the same step twice", "gives the same loss").text())
        repeats: the same step twice: gives the same loss
    """

    question: QuestionName
    measured: str
    answer: str
    asked: bool = True

    def text(self) -> str:
        """The question, what was measured for it, and the answer."""
        return f"{self.question}: {self.measured}: {self.answer}"


def answers(evidence: Evidence, causes: Sequence[Cause] = ()) -> tuple[Answer, ...]:
    """The six questions in their order, each with what this run answers.

    Args:
        evidence: all that was measured. Of a question of which nothing was, the answer says so.
        causes: the strongest first. Beside one that needs no trial there is no list of them.
    """
    told = [
        Answer(name, measured, "; ".join(found) or unanswered(evidence), asked=bool(found))
        for name, measured, look, unanswered in QUESTIONS
        for found in [list(look(evidence))]
    ]
    if needs_no_trial(causes) and not evidence.passed:
        told[-1] = replace(told[-1], answer=NOT_NEEDED, asked=False)
    return tuple(told)


def needs_no_trial(causes: Sequence[Cause]) -> bool:
    """Whether the first cause was shown for certain: what else learns, or does not, says nothing against it.

    Example:
        >>> needs_no_trial([Cause("units", "extrinsics", "off by 1000", "divide", "shown", certain=True)])
        True
    """
    return bool(causes) and causes[0].certain and causes[0].strength == "shown"


def still_open(not_asked: Sequence[NotAsked], causes: Sequence[Cause]) -> tuple[NotAsked, ...]:
    """What was not asked and could say something beside these causes."""
    settled = needs_no_trial(causes)
    return tuple(each for each in not_asked if each.ours or not (settled and each.question.endswith(" trials")))


def _depends(evidence: Evidence) -> Iterator[str]:
    probed, asked = evidence.probed, evidence.record.supervision
    read = () if asked is None else tuple(name for name in asked.inputs if name not in probed.ignored)
    if read or probed.ignored:
        idle = f", not {shorten(probed.ignored)}" if probed.ignored else ""
        yield f"the outputs follow {shorten(read) or 'none of the inputs'}{idle}"
    if probed.mixed is not None:
        yield f"of a changed sample the other samples' outputs move {number(probed.mixed)} as far as its own"
    for leak in probed.leaks:
        yield f"{leak.where} reads {leak.what}"
    if asked is not None:
        for target, share in asked.shares.items():
            yield f"the loss reads {share.text()} of {target}"
        if asked.unread:
            yield f"changes nothing: {shorten(asked.unread)}"


def _moves(evidence: Evidence) -> Iterator[str]:
    parameters = evidence.record.parameters
    if not parameters:
        return
    learning = [each for each in parameters if each.trainable]
    still = [each.name for each in learning if not each.moved]
    cold = [each.name for each in learning if not each.max_grad]
    drifted = [each.name for each in parameters if not each.trainable and each.moved]
    yield f"{len(learning) - len(still)} of {len(learning)} trainable tensors moved"
    if cold:
        yield f"no gradient reached {shorten(cold)}"
    if len(parameters) > len(learning):
        yield f"{len(parameters) - len(learning)} frozen" + (f", of which moved {shorten(drifted)}" if drifted else "")
    ratios = [ratio for update in evidence.updates for ratio in update.ratios if ratio]
    if ratios:
        yield f"an update is {number(median(ratios))} of its weight in the median"


def _agrees(evidence: Evidence) -> Iterator[str]:
    step = next((each for each in evidence.steps if each.differentiated), None)
    if step is not None:
        yield f"reported {number(step.reported)}, differentiated {shorten(map(number, step.differentiated))}"
    agreement = evidence.record.supervision and evidence.record.supervision.agreement
    if agreement:
        yield f"the step reports {number(agreement.reported)} where the loss is {number(agreement.loss)}"


def _repeats(evidence: Evidence) -> Iterator[str]:
    probed = evidence.probed
    if probed.training is not None:
        yield f"in training mode the loss {_spread(probed.random_training)}"
    if probed.evaluation is not None:
        yield f"in evaluation mode it {_spread(probed.random_evaluation)}"
        settled = probed.evaluation_settled
        after = "" if settled is None else f", {number(settled)} with settled statistics"
        if probed.training is not None:
            yield f"{number(probed.training)} in training mode, {number(probed.evaluation)} in evaluation mode{after}"


def _spread(random: float) -> str:
    return f"differs by {number(random)} from call to call" if random else "is the same in every call"


def _reaches(evidence: Evidence) -> Iterator[str]:
    finite = [value for value in evidence.objective if value - value == 0]
    if finite:
        yield f"the objective reached {number(min(finite))}"
    floor = evidence.probed.floor
    if floor is not None:
        bound = " and was still falling" if floor.unbounded else ""
        yield f"over free outputs it reaches {number(floor.reached)}{bound}"
    for output in evidence.probed.outputs[:2]:
        yield f"{output.name or 'the output'} lies in {number(output.low)} to {number(output.high)}"


def _learns(evidence: Evidence) -> Iterator[str]:
    for attempt in evidence.attempts[:MOST_TRIALS]:
        how = f"learns in {attempt.passed_at} steps" if attempt.passed_at is not None else "does not learn"
        yield f"{attempt.trial.text} {how}"
    if len(evidence.attempts) > MOST_TRIALS:
        yield f"and {len(evidence.attempts) - MOST_TRIALS} more trials"


def _nothing(evidence: Evidence) -> str:
    return NOTHING_ASKED


def _no_trial(evidence: Evidence) -> str:
    if evidence.passed:
        return "not asked: the run passed, it needs no trial"
    if evidence.interrupted:
        return "not asked: interrupted"
    if evidence.learned:
        return "not asked: every limit was met, no trial can say more"
    return "not asked: no trial was made"


Look = Callable[[Evidence], Iterator[str]]
QUESTIONS: Sequence[tuple[QuestionName, str, Look, Callable[[Evidence], str]]] = (
    ("depends", "what moves the outputs, and what the loss reads", _depends, _nothing),
    ("moves", "which parameters a gradient reached, and which moved", _moves, _nothing),
    ("agrees", "the reported objective against what was differentiated", _agrees, _nothing),
    ("repeats", "the same call again, in training and in evaluation mode", _repeats, _nothing),
    ("reaches", "how low the loss goes", _reaches, _nothing),
    ("learns", "the run again from the same start, one thing changed", _learns, _no_trial),
)
