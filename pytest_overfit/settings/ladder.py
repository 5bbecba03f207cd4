"""The one ladder of settings: defaults < ini < config file < command line < marker < call.

A layer is what one of these places says. Layers meet either here (a run without a config) or in ``compose`` (a run
with one), and the strict reader of the ``overfit:`` section reads what comes out of both.
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_overfit.errors import ConfigError
from pytest_overfit.errors.suggest import nearest
from pytest_overfit.settings.criteria_registry import limit_aliases
from pytest_overfit.settings.keywords import DEFAULT, MARKER, TERMS, keys, keyword_of, no_terms
from pytest_overfit.settings.problems import Problem, Unusable, shown
from pytest_overfit.settings.settings import ANY_MODEL, OverfitSettings

STRICT, STRICT_KEY = "--overfit-strict", "require_gpu"
_TYPO_RATIO = 0.85  # speed is no misspelling of seeds; what is let through here is met at the first step


# What people call our keywords elsewhere: never the name of a loss term.
OTHER_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("learning_rate", "base_lr", "eta"), "lr"),
    **dict.fromkeys(("steps", "epochs", "num_epochs", "max_epochs", "n_steps", "num_steps", "max_iter"), "max_steps"),
    **dict.fromkeys(("iterations", "n_epochs", "max_iters", "num_iterations"), "max_steps"),
    **dict.fromkeys(("timeout", "seconds", "max_time"), "max_seconds"),
    **dict.fromkeys(("threshold", "tol", "tolerance", "atol", "limit", "target", "max_loss"), "objective"),
    **dict.fromkeys(("seed", "random_seed", "random_state"), "seeds"),
    **dict.fromkeys(("patience", "hold"), "hold_steps"),
    **dict.fromkeys(("grad_clip", "max_grad_norm", "gradient_clip_val", "clip"), "clip_grad_norm"),
}


@dataclass(frozen=True)
class Layer:
    """What one rung of the ladder says.

    Example:
        >>> layer_of_keywords(MARKER, {"max_steps": 50, "accuracy": {"above": 0.99}}).values
        {'budget': {'max_steps': 50}, 'criteria': {'terms': {'accuracy': {'above': 0.99}}}}

    Args:
        source: how messages and tables call it.
        values: nested as the ``overfit:`` section.
        keywords: dotted key -> the keyword that gave it; such a value is replaced as a whole, never merged.
        config: the config file that a marker names.
    """

    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    keywords: Mapping[str, str] = field(default_factory=dict)
    config: str | None = None

    def leaves(self) -> Iterator[tuple[str, tuple[str, ...], Any]]:
        """The dotted key, its parts and the value of everything that is said."""
        yield from self._leaves(self.values, ())

    def _leaves(self, node: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
        for name, value in node.items():
            parts = (*above, str(name))
            key = ".".join(parts)
            if isinstance(value, dict) and value and key not in self.keywords:
                yield from self._leaves(value, parts)
            else:
                yield key, parts, value

    def states(self, key: str, *, around: bool = False) -> bool:
        """Whether a key (dotted, below ``overfit:``) has its value from here; ``around``: or any key below it."""
        return any(_is_said(key, leaf, around=around) for leaf, _, _ in self.leaves())

    def spoken(self, key: str) -> str:
        """A dotted key as this place spells it: by its keyword, or in full."""
        for dotted, keyword in self.keywords.items():
            if f"{key}.".startswith(f"{dotted}."):
                return keyword + key[len(dotted) :]
        return keyword_of(key) if self.keywords else f"overfit.{key}"


@dataclass(frozen=True)
class Resolved:
    """The settings of one run without a config, and the place that each comes from.

    ``sources`` has every keyword of the table, every term with a limit, and further keys below ``overfit:`` that some
    layer gives.
    """

    settings: OverfitSettings
    sources: Mapping[str, str]


def misspelt(names: Iterable[str], known: Sequence[str] = ()) -> dict[str, str | None]:
    """Names that are likely misspellings of keywords -> what is likely meant; ``known``: these, in place of a call's.

    Example:
        >>> misspelt(["max_step", "objective"])
        {'max_step': 'max_steps'}
    """
    known = known or [*keys()]
    wrong = (name for name in names if _is_wrong(name, known))
    return {name: OTHER_NAMES.get(name) or nearest(name.casefold(), known) for name in wrong}


def layer_of_keywords(source: str, keywords: Mapping[str, Any], args: Sequence[object] = ()) -> Layer:
    """The layer of a marker or a call: keywords of the table, and limits by the names of their terms.

    Example:
        >>> layer_of_keywords("overfit(...)", {"seeds": (0, 1), "camera": 0.1}).values
        {'seeds': [0, 1], 'criteria': {'camera': 0.1}}

    A keyword that is None says nothing: what is below in the ladder holds.

    Args:
        args: the positional arguments of a marker, which takes none.

    Raises:
        ConfigError: a positional argument, a keyword of a config alone, or a likely misspelling of a keyword.
    """
    known = [*(["config"] if source == MARKER else []), *keys()]
    misnamed = misspelt(keywords, known)
    if wrong := [*map(repr, args), *misnamed]:
        near = list(dict.fromkeys(filter(None, misnamed.values())))
        listed = ", ".join(f"{name}=" for name in known)
        meant = f"did you mean {' and '.join(map(repr, near))}? pytest-overfit explain {' '.join(near)}"
        found = f"argument{'s' if len(wrong) > 1 else ''} {', '.join(wrong)}"
        allowed = f"{'a keyword' if len(near) == len(wrong) else listed}, or the name of a term with its limit"
        raise ConfigError(found, where=source, allowed=allowed, hint=meant if near else None)
    values: dict[str, Any] = {}
    spoken: dict[str, str] = {}
    for name, value in keywords.items():
        if name == "config" or value is None:  # None is what a helper hands on that was told nothing
            continue
        if source == MARKER and callable(value) and name not in known:
            allowed = f"settings; what can be called stands in the call: overfit(model, data, {name}=...)"
            raise ConfigError(f"{name}=, a {type(value).__name__}", where=source, allowed=allowed)
        parts = _parts_of(name)
        key = ".".join(parts)
        if key in spoken:
            raise ConfigError(f"{name} beside {spoken[key]}", where=source, allowed="one of them: they are the same")
        spoken[key] = name
        values = _merged(values, _nested(parts, _plain(value)))
    config = keywords.get("config")
    return Layer(source, values, spoken, None if config is None else str(config))


def layer_of_terms(source: str, terms: Any) -> Layer:
    """The layer of ``criteria={"terms": ...}``: limits of terms of any name, ``clip`` and ``limit`` too."""
    return Layer(source, {} if terms is None else {"criteria": {"terms": _plain(terms)}})


def layer_of_overrides(source: str, texts: Sequence[str]) -> Layer:
    """The layer of ``overfit.<key>=value`` texts, for a run without a config: other keys, and ``~key``, are a config's.

    Example:
        >>> layer_of_overrides("ini", ["overfit.seeds=[1, 2]", "optim.optimizer.lr=1e-3"]).values
        {'seeds': [1, 2]}

    Raises:
        ConfigError: a text is malformed; all problems in one error.
    """
    from pytest_overfit.settings.overrides import parse_override

    values: dict[str, Any] = {}
    problems: list[tuple[str, Problem]] = []
    for text in texts:
        try:
            override = parse_override(text)
        except Unusable as error:
            problems.extend((source, problem) for problem in error.problems)
            continue
        if override.parts[0] != "overfit" or override.of_hydra or override.is_group or override.removes:
            continue
        node: Any = _nested(override.parts[1:], override.value)
        if isinstance(node, dict):
            values = _merged(values, _canonical(node))
        else:
            problems.append((source, Problem("overfit", shown(node), "a mapping")))
    if problems:
        raise _error(problems, "the overrides")
    return Layer(source, values)


def resolve_settings(layers: Sequence[Layer], *, where: str) -> Resolved:
    """The settings of a run without a config.

    Example:
        >>> resolved = resolve_settings([layer_of_keywords(MARKER, {"max_steps": 50})], where="test_a.py::test_a")
        >>> resolved.settings.budget.max_steps, resolved.sources["max_steps"], resolved.sources["device"]
        (50, '@pytest.mark.overfit', 'default')

    Args:
        layers: weakest first.
        where: whose settings they are, for the error.

    Raises:
        ConfigError: with every problem of the merged settings, each with the layer that it came from.
    """
    from pytest_overfit.settings.criteria_section import read_overfit
    from pytest_overfit.settings.section import Section

    values: dict[str, Any] = {}
    for layer in layers:
        values = _merged(values, layer.values, layer.keywords)
    problems: list[Problem] = []
    section = Section(copy.deepcopy(values), "overfit", problems)
    settings = read_overfit(section, ANY_MODEL, Path(), in_config=False)
    budget = settings.budget
    if budget.max_steps is not None and budget.hold_steps > budget.max_steps:
        found = f"{budget.hold_steps}, more than the {budget.max_steps} steps of the run"
        problems.append(Problem("overfit.budget.hold_steps", found, f"at most {budget.max_steps}"))
    if problems:
        placed = [told(problem, layers, DEFAULT) for problem in dict.fromkeys(problems)]
        raise _error(placed, f"the settings of {where}")
    return Resolved(settings, _sources(settings, layers))


def told(problem: Problem, layers: Sequence[Layer], otherwise: str) -> tuple[str, Problem]:
    """The place that a problem of the ``overfit:`` section came from, and the problem in the words of that place.

    That of the strongest layer that gives the key; else of one that says something below or beside it.
    """
    section, _, key = problem.key.partition(".")
    if section != "overfit":
        return otherwise, problem
    beside = key.rpartition(".")[0]
    tries = [(key, False), (key, True), *([(beside, True)] if beside else [])]
    for name, around in tries:
        for layer in reversed(layers):
            if layer.states(name, around=around):
                return layer.source, replace(problem, key=layer.spoken(key))
    return otherwise, problem


def _sources(settings: OverfitSettings, layers: Sequence[Layer]) -> dict[str, str]:
    known = [*keys().values(), *(f"{TERMS}.{name}" for name in settings.criteria.terms)]
    leaves = [(leaf, layer.source) for layer in layers for leaf, _, _ in layer.leaves()]
    further = [leaf for leaf, _ in leaves if not any(_covers(key, leaf) for key in known)]
    sources = {}
    for key in dict.fromkeys([*known, *further]):
        said = [source for leaf, source in leaves if _is_said(key, leaf, around=True)]
        sources[keyword_of(key)] = said[-1] if said else DEFAULT
    return sources


def _is_said(key: str, leaf: str, *, around: bool) -> bool:
    return f"{key}.".startswith((f"{leaf}.", f"{leaf}[")) or (around and f"{leaf}.".startswith(f"{key}."))


def _covers(key: str, leaf: str) -> bool:
    return f"{leaf}.".startswith(f"{key}.") or f"{key}.".startswith(f"{leaf}.")


def _parts_of(keyword: str) -> tuple[str, ...]:
    """Where a keyword stands below ``overfit:``."""
    name = limit_aliases().get(keyword, keyword)
    return tuple(keys()[name].split(".")) if name in keys() else (*TERMS.split("."), name)


def _is_wrong(name: str, known: Sequence[str]) -> bool:
    """Whether a keyword cannot be the name of a term: a config's own, or nearly a keyword and not made of one."""
    if name in known:
        return False
    if name in OTHER_NAMES:
        return True
    made_of_one = any(part in known for part in name.split("_")) or name in limit_aliases()
    return name in no_terms() or (not made_of_one and nearest(name.casefold(), known, cutoff=_TYPO_RATIO) is not None)


def _plain(value: Any) -> Any:
    """A Python value as a config has it: lists, mappings, plain numbers, text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (Sequence, Set)) and not isinstance(value, bytes):
        return [_plain(item) for item in value]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return repr(value)  # nothing that a setting can be: the reader will say so


def _canonical(section: dict[Any, Any]) -> dict[Any, Any]:
    """One name for every limit: ``camera`` for ``loss_camera``, ``terms.loss_T`` for ``loss_T``."""
    criteria = section.get("criteria")
    if not isinstance(criteria, dict):
        return section
    named: dict[Any, Any] = {}
    for name, value in criteria.items():
        is_limit = str(name).startswith("loss_")
        parts = _parts_of(name)[1:] if is_limit else (name,)
        named = _merged(named, _nested(parts, value))
    return {**section, "criteria": named}


def _nested(parts: Sequence[Any], value: Any) -> dict[Any, Any]:
    for part in reversed(parts):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def _merged(
    weaker: Mapping[Any, Any], stronger: Mapping[Any, Any], whole: Mapping[str, str] | None = None, above: str = ""
) -> dict[Any, Any]:
    """Two mappings as one, key by key; the keys of ``whole`` are not merged but replaced."""
    merged = dict(weaker)
    for name, value in stronger.items():
        old, key = merged.get(name), f"{above}{name}"
        if isinstance(value, Mapping) and isinstance(old, Mapping) and key not in (whole or ()):
            value = _merged(old, value, whole, f"{key}.")
        merged[name] = value
    return merged


def _error(problems: Sequence[tuple[str, Problem]], what: str) -> ConfigError:
    head = f"{len(problems)} problem{'' if len(problems) == 1 else 's'} in {what}"
    return ConfigError("\n".join([head, *(f"  {problem.line(source)}" for source, problem in problems)]))


def strict_settings(resolved: Resolved) -> Resolved:
    """The settings of a run without a config as a strict session runs it.

    Where nobody names a device, the one that the model is on was chosen by nobody either.

    Example:
        >>> given = [{}, {"device": "cpu"}, {"device": "auto"}]
        >>> all_resolved = [resolve_settings([layer_of_keywords("call", keywords)], where="") for keywords in given]
        >>> [strict_settings(resolved).settings.require_gpu for resolved in all_resolved]
        [True, False, True]
    """
    settings, sources = resolved.settings, resolved.sources
    named = settings.device != "auto" and sources.get("device", DEFAULT) != DEFAULT
    if named or settings.require_gpu:
        return resolved
    return Resolved(replace(settings, require_gpu=True), {**sources, STRICT_KEY: STRICT})
