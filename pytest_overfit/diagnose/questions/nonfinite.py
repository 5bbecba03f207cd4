"""Where the first NaN or infinity arose: the run is repeated up to that step, and watched closely there."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from dataclasses import replace
from typing import Any

import torch

from pytest_overfit.diagnose.operation import LOSS, Op
from pytest_overfit.diagnose.questions.step_loss import loss_of
from pytest_overfit.diagnose.questions.step_tracer import StepTracer
from pytest_overfit.errors.asking import Questions, Refused, Unanswerable, users_code
from pytest_overfit.run.context import NEVER, RunContext
from pytest_overfit.run.loop import fit
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.stack_lines import is_library
from pytest_overfit.run.update import Again

_NODE = re.compile(r"Function '(\w+?)(?:Backward)?\d*' returned nan")
_LINE = re.compile(r'File "([^"]+)", line (\d+)')


def first_bad_operations(
    context: RunContext, record: RunRecord, seen: Op | None, until: float, questions: Questions
) -> tuple[Op | None, Op | None]:
    """(the forward operation, the backward operation) that first gave a number that is none; None where neither did."""
    assert record.non_finite is not None
    before = record.non_finite.step - 1
    with context.at_start():
        if seen is None and before > 0:
            watch = context.new_watch()
            plan = replace(
                context.plan,
                max_steps=before,
                limits={},
                val_every=NEVER,
                gradient_every=NEVER,
                strict_terms=False,
                max_seconds=max(0.1, until - time.perf_counter()),
            )
            curves = fit(context.task, Again(context.update(context.task, watch)), plan, watch=watch)
            if curves.stop == "interrupted":
                raise KeyboardInterrupt
            if len(curves.steps) < before:
                raise Unanswerable("the run could not be repeated up to its first NaN in the time that was left")
        task = loss_of(context)
        if task is None:
            return seen, None
        tracer = StepTracer(context.task.model, context.task.batch, None, questions)
        if seen is None:
            with contextlib.suppress(Refused), tracer.tracing([], modules=False):  # a model may refuse its own NaN
                context.on(task).forward()
            seen = tracer.bad
        return seen, None if seen is not None else _backward(context, task)


def _backward(context: RunContext, task: Any) -> Op | None:
    """The operation whose gradient is NaN, as anomaly detection names it, with the line of its forward call."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with torch.autograd.set_detect_anomaly(True):
                objective = context.on(task).forward()[1]["objective"]
                with users_code():
                    objective.backward()  # type: ignore[no-untyped-call]
        except Refused as refused:
            found = _NODE.search(str(refused.error))
            if found is None:
                return None
            return Op(found.group(1), LOSS, _users_line("\n".join(str(w.message) for w in told)))
    return None


def _users_line(trace: str) -> str:
    """The last line of a traceback that is the user's own."""
    lines = [(path, number) for path, number in _LINE.findall(trace) if not is_library(path)]
    if not lines:
        return ""
    path, number = lines[-1]
    return f"{path.rpartition('/')[2]}:{number}"
