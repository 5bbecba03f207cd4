"""What is added to the loss without a gradient: in every step that was watched, and what it comes to at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_overfit.diagnose.operation import LOSS, Op, Summand
from pytest_overfit.diagnose.questions.step_tracer import StepTracer
from pytest_overfit.run.context import RunContext


def standing_summands(
    tracer: StepTracer, on: RunContext, steps: Sequence[Mapping[tuple[str, str], float]]
) -> Iterator[Op]:
    """Those of all ``steps``, operation and line -> value; ``on``: the trained model, in training mode."""
    common = set.intersection(*map(set, steps)) if steps else set()
    if not common:
        return
    with tracer.tracing(on.optimizers, modules=False, checked=False):
        kept = on.seeded()
        found = dict(tracer.graph.summands)
    del kept
    for by, line in sorted(common & set(found)):
        yield Op("summand", LOSS, line, fact=Summand(by, steps[0][by, line], found[by, line]))
