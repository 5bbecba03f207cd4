"""The names that a criterion's term may have in a user's loss, best first."""

from __future__ import annotations

from collections.abc import Iterable

OBJECTIVE_NAMES = ("objective", "loss_objective", "loss")
ALIASES = {
    "objective": ("objective",),
    "camera": ("loss_camera", "camera"),
    "depth": ("loss_depth", "loss_reg_depth", "depth"),
}


def resolve_term(criterion: str, terms: Iterable[str]) -> str | None:
    """The loss's own name for a criterion's term, or None when the loss gives no such term.

    Example:
        >>> resolve_term("depth", ["objective", "loss_reg_depth", "loss_conf_depth"])
        'loss_reg_depth'
    """
    given = set(terms)
    return next((name for name in ALIASES.get(criterion, (criterion,)) if name in given), None)


def resolved_terms(terms: Iterable[str]) -> dict[str, str]:
    """Criterion -> the loss's own name for its term, of every criterion whose term the loss gives.

    Example:
        >>> resolved_terms(["objective", "loss_reg_depth"])["depth"]
        'loss_reg_depth'
    """
    given = list(terms)
    named = {criterion: resolve_term(criterion, given) for criterion in (*given, *ALIASES)}
    return {criterion: name for criterion, name in named.items() if name is not None}
