"""The first line of a failure has the place where the graph is cut, whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pytest_overfit.diagnose.causes.graph import _cut
from pytest_overfit.diagnose.step_trace import Cut
from pytest_overfit.judge.finding import Finding
from pytest_overfit.text.failure import HEAD_WIDTH, headline


def test_the_place_of_no_grad_is_in_the_first_line() -> None:
    """Beside the numbers, within the width that a list of failures shows."""
    names = tuple(f"body.{i}.weight" for i in range(48))
    evidence: Any = SimpleNamespace(
        record=SimpleNamespace(parameters=[SimpleNamespace(name=name) for name in (*names, "head.weight")]), unused=()
    )
    cause = _cut(Cut("torch.no_grad", "src/package/models.py:127", names), names, evidence, 78)
    head = headline([Finding("gradients", False, "no gradient arrives", "gradients in all")], [cause])
    assert head.endswith(
        "48 of 78 tensors in the forward pass get no gradient: torch.no_grad at src/package/models.py:127"
    )
    assert len(head) <= HEAD_WIDTH
