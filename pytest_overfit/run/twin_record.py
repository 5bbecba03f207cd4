"""What became of a twin: the same run from the same start, with one thing of its execution exchanged; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_overfit.settings.criterion import bounded

TWINS = (
    "resume", "accumulation", "batch", "bfloat16", "float16", "compile", "checkpointing", "attention", "fused",
    "workers", "device", "ranks", "export",
)  # fmt: skip
PORT = "port"  # asked where ``port_of`` is given


@dataclass(frozen=True)
class Twins:
    """Which twins are asked, and over how many steps they are compared."""

    names: tuple[str, ...] = bounded(TWINS, choices=TWINS)
    steps: int = bounded(10, at_least=2, at_most=100, whole=True)


@dataclass(frozen=True)
class TwinResult:
    """One twin: it agreed, it disagreed, or it was not asked.

    Example:
        >>> print(TwinResult("fused", "agreed", "Adam with fused=True", steps=10, size=2e-7, allowed=1e-4).text())
        fused: agrees over 10 steps (Adam with fused=True)

    Args:
        name: of the twin, and of its kind where it has several: ``accumulation (2 parts)``.
        exchanged: what it did otherwise.
        steps: how many were compared.
        step: the first that disagrees, from 1; ``what`` differs there.
        outputs, gradients: the first modules whose outputs and gradients differ; empty where none does, or none can
            be named.
        size: by how much it differs, relative; the largest share of what is allowed where it agrees.
        allowed: how much may differ, relative; 0: not one bit.
        missing: what a checkpoint did not bring back.
        why: it was not asked.
        curve: the twin's losses, the first of them at step ``first``.
    """

    name: str
    outcome: Literal["agreed", "disagreed", "not asked"]
    exchanged: str = ""
    steps: int = 0
    step: int | None = None
    what: str = ""
    outputs: str = ""
    gradients: str = ""
    size: float = 0.0
    allowed: float = 0.0
    missing: tuple[str, ...] = ()
    why: str = ""
    curve: tuple[float, ...] = ()
    first: int = 1

    @property
    def where(self) -> str:
        """The step, the modules and what is missing, in words."""
        parts = [f"step {self.step}"] if self.step else []
        parts += [f"outputs first differ in {self.outputs}"] if self.outputs else []
        parts += [f"gradients first differ in {self.gradients}"] if self.gradients else []
        parts += [f"not brought back: {', '.join(self.missing)}"] if self.missing else []
        return "; ".join(parts)

    @property
    def observed(self) -> str:
        """What was seen, in a few words."""
        if self.outcome == "not asked":
            return f"not asked: {self.why}"
        if self.outcome == "agreed":
            return f"agrees over {self.steps} step{'s' * (self.steps != 1)}" if self.steps else "agrees"
        allowed = f"by {self.size:.2g} of its size, allowed {self.allowed:.2g}" if self.allowed else "bit for bit"
        return f"{self.what} differs {allowed}" if self.allowed else f"{self.what} is not the same {allowed}"

    def text(self) -> str:
        """One line."""
        tail = f" ({self.exchanged})" if self.exchanged else ""
        where = f": {self.where}" if self.where and self.outcome == "disagreed" else ""
        return f"{self.name}: {self.observed}{tail}{where}"
