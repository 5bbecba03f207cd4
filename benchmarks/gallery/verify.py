"""Whether a bug is what it says: healthy twin, changed behaviour, breaking or silent in a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.gallery.case import Bug
from benchmarks.zoo.bare import Curve, is_criterion, train
from benchmarks.zoo.case import Setup


@dataclass(frozen=True)
class Plain:
    """How a plain loop went: its curve, or what it raised."""

    curve: Curve | None
    raised: str = ""

    @property
    def reached(self) -> bool:
        return self.curve is not None and self.curve.reached


def run_plain(setup: Setup) -> Plain:
    """A plain loop over a setup; a callable as data is drawn from in every step."""
    try:
        return Plain(train(with_draws(setup) if callable(setup.data) else setup))
    except Exception as error:  # a bug may raise: that is how it breaks
        return Plain(None, f"{type(error).__name__}: {error}")


def with_draws(setup: Setup) -> Setup:
    """The same setup with a loss that draws its own batch."""
    draw: Callable[[], Any] = setup.data
    if setup.step is not None or setup.loss is None:
        raise NotImplementedError("a callable as data takes a loss of (model, batch)")
    criterion = is_criterion(setup.loss)

    def loss(model: Any, _: Any) -> Any:
        batch = draw()
        return setup.loss(model(batch[0]), batch[1]) if criterion else setup.loss(model, batch)

    return replace(setup, data=None, loss=loss)


def verify(bug: Bug, seed: int) -> list[str]:
    """What of a bug is not as it says; nothing where all is."""
    problems = []
    healthy = bug.healthy(seed)
    twin = run_plain(healthy)
    if not twin.reached:
        problems.append("the healthy twin misses its limit")
    try:
        broken = bug.build(seed)
    except Exception as error:
        return [*problems, f"does not build: {type(error).__name__}: {error}"]
    if dict(broken.settings) != dict(healthy.settings):
        problems.append(f"declares {dict(broken.settings)}, its twin {dict(healthy.settings)}")
    found = run_plain(broken)
    if found.reached != (bug.kind == "silent"):
        last = found.raised or (found.curve and [found.curve.objective[0], *found.curve.objective[-3:]])
        problems.append(f"is called {bug.kind}, and a plain loop {'passes' if found.reached else 'misses'}: {last}")
    if not (curves_differ(twin, found) or (bug.shows is not None and bug.shows(healthy) != bug.shows(broken))):
        problems.append("behaves as its twin does")
    return problems


def curves_differ(one: Plain, other: Plain) -> bool:
    """Whether the steps that both curves have differ anywhere; one that raised differs."""
    if one.curve is None or other.curve is None:
        return True
    return any(a != b for a, b in zip(one.curve.objective, other.curve.objective, strict=False))
