"""The examples of causes: one mistake each, with a comment that says what has to be in its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from pytest_overfit import OverfitResult

BLOCK = re.compile(r"^(?P<prelude><!-- prelude -->\n)?```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
FIXED = re.compile(r"(?P<indent> *)(?:\S.*?  )?# fixed: (?P<code>.*)")
REMOVE = "remove this line"
SECONDS = 60.0  # of a diagnosis: a busy machine must not cut trials short


def fixed(code: str) -> str:
    """The example with every line replaced by what its comment says."""
    lines = []
    for line in code.splitlines():
        match = FIXED.fullmatch(line)
        if match is None:
            lines.append(line)
        elif match["code"] != REMOVE:
            lines.append(match["indent"] + match["code"])
    return "\n".join(lines)


def run_example(code: str, name: str, run_overfit: Callable[..., OverfitResult], *, prelude: str = "") -> OverfitResult:
    """The ``result`` of an example, with the random state of the test left alone."""
    space: dict[str, Any] = {"__name__": name}
    with torch.random.fork_rng():
        exec(compile(prelude, "prelude.py", "exec"), space)
        space["run_overfit"] = partial(run_overfit, diagnose_seconds=SECONDS)
        exec(compile(code, f"{name}.py", "exec"), space)
    result = space["result"]
    assert isinstance(result, OverfitResult)
    return result


def told(result: OverfitResult) -> str:
    """What a failed assertion shows."""
    missed = [finding.text() for finding in result.findings if not finding.passed]
    return "\n".join(["", *(cause.text() for cause in result.causes), *missed])
