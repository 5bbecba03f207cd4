"""The table of settings: one keyword each of the marker, the call and the command line, and its key in a config."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.criteria_registry import entries
from pytest_overfit.settings.criterion import Criterion
from pytest_overfit.settings.settings import AmpConfig, OverfitSettings

MARKER = "@pytest.mark.overfit"
COMMAND_LINE = "command line"
INI = "ini"
DEFAULT = "default"
LIMIT = "a number (below it), {below: number, above: number, relative: true, window: steps}, or false"


@dataclass(frozen=True)
class Setting:
    """One keyword of ``@pytest.mark.overfit(...)``, ``overfit(...)`` and ``run_overfit(...)``.

    Args:
        key: its dotted key below ``overfit:`` in a config file.
        kind: what it may be.
        default, in_config: without a config, and under one where that is another.
        option: the command-line option of its own; its ini twin has the same name with underscores.
    """

    name: str
    key: str
    kind: str
    default: str
    help: str
    in_config: str = ""
    option: str = ""


_SETTINGS = (
    Setting("max_steps", "budget.max_steps", "a whole number of at least 1", "1000", "the most steps of a run",
            "max_epochs x steps_per_epoch", option="--overfit-max-steps"),
    Setting("max_seconds", "budget.max_seconds", "a number above 0", "none",
            "the most seconds of a run; code that does not come back is stopped, and its line named (see below)",
            option="--overfit-max-seconds"),
    Setting("hold_steps", "budget.hold_steps", "a whole number of at least 1", "5",
            "for how many steps in a row the criteria have to hold"),
    Setting("seeds", "seeds", "a whole number, or a list of distinct ones", "0", "one run for each of these seeds",
            "seed_value", option="--overfit-seeds"),
    Setting("pass_at_least", "pass_at_least", "a whole number from 1 to the number of seeds", "all",
            "how many of the seeds have to pass"),
    Setting("device", "device", "auto | model | cpu | cuda | cuda:N | mps | xpu", "model",
            "where to train: auto takes a GPU where there is one, model leaves the model where it is", "auto",
            option="--overfit-device"),
    Setting("require_gpu", "require_gpu", "true or false", "off", "fail where no GPU is found",
            option="--overfit-require-gpu"),
    Setting("amp", "amp", "false | bfloat16 | float16", "off", "automatic mixed precision", "optim.amp"),
    Setting("freeze", "freeze", "text, or a list of text", "none",
            "globs over modules and parameters that are frozen for the run; a module is held in evaluation mode too",
            "optim.frozen_module_names"),
    Setting("clip_grad_norm", "clip_grad_norm", "a number above 0, or a mapping of globs over modules to such numbers",
            "none", "clip the norm of all gradients together, or of each of these modules, before every step",
            "optim.gradient_clip"),
    Setting("threads", "threads", "auto, keep, or a whole number from 1 to 4096", "keep",
            "CPU threads: auto takes the idle cores, keep leaves the process as it is", "auto"),
    Setting("deterministic", "deterministic", "true or false", "on", "deterministic kernels where torch has them"),
    Setting("keep_trained", "keep_trained", "true or false", "off",
            "leave the trained parameters in the model after the run"),
    Setting("unused", "criteria.unused", "text, or a list of text", "none",
            "globs over parameters that get no gradient on purpose"),
    Setting("frozen", "criteria.frozen", "text, or a list of text", "none",
            "globs over parameters that do not move on purpose"),
    Setting("unbounded", "criteria.unbounded", "true or false", "off",
            "the objective has no floor; its limit has to be stated"),
    Setting("stochastic", "criteria.stochastic", "true or false", "off",
            "forward passes or draws are random: limits hold for a windowed mean"),
    Setting("allow", "criteria.allow", "text, or a list of text", "none",
            "ids of causes (docs/causes.md) that are meant here"),
    Setting("diagnose", "diagnose", "true or false", "on",
            "probe every run, and look for the cause of one that fails"),
    Setting("diagnose_seconds", "diagnose_seconds", "a number above 0", "three times all steps, at least 2",
            "the most seconds that the diagnosis of a failed run may take"),
    Setting("strategy", "distributed.strategy", "ddp | fsdp", "ddp",
            "under torchrun: DDP, or FSDP2 for a model that does not fit (docs/distributed.md)"),
    Setting("rank_timeout", "distributed.timeout", "a number above 0, at most 86400", "120",
            "under torchrun: the most seconds that a rank keeps the others waiting"),
    Setting("fsdp_modules", "distributed.modules", "text, or a list of text", "none",
            "under torchrun: globs over the modules that FSDP2 shards each on its own; none: the model's blocks"),
)  # fmt: skip
_CRITERIA_AT = next(place for place, setting in enumerate(_SETTINGS) if setting.name == "unused")
# Of the marker alone.
CONFIG = Setting("config", "", "a path, relative to the test file", "none", "the config file to run under")

TERMS = "criteria.terms"


@functools.cache
def table_of_settings() -> tuple[Setting, ...]:
    """Every keyword: the objective's limit, what a run may do, the other criteria, what is declared to be meant."""
    criteria = {name: _row_of(entry.load()) for name, entry in entries().items()}
    objective = criteria.pop("objective")
    return (objective, *_SETTINGS[:_CRITERIA_AT], *criteria.values(), *_SETTINGS[_CRITERIA_AT:])


@functools.cache
def keys() -> Mapping[str, str]:
    """The key of every keyword. The modules of the criteria are not imported.

    Example:
        >>> keys()["camera"], keys()["max_steps"]
        ('criteria.camera', 'budget.max_steps')
    """
    criteria = {name: f"criteria.{name}" for name in entries()}
    others = {setting.name: setting.key for setting in _SETTINGS}
    ordered = [*list(others)[:_CRITERIA_AT], *criteria, *list(others)[_CRITERIA_AT:]]
    return {name: {**others, **criteria}[name] for name in dict.fromkeys(("objective", *ordered))}


@functools.cache
def no_terms() -> frozenset[str]:
    """Names of a config that are no keywords, and would otherwise be taken for a limit on a term of that name."""
    return frozenset({field.name for field in fields(OverfitSettings)} | {"terms", "config"}) - keys().keys()


def _row_of(criterion: Criterion) -> Setting:
    """A criterion as a row of the table."""
    kind = "true or false"
    if isinstance(criterion.setting, Limit):
        kind = "a limit"
    elif is_dataclass(criterion.setting):
        *first, last = [field.name for field in fields(criterion.setting)]
        kind = "true, false, or a mapping of " + " and ".join([*([", ".join(first)] if first else []), last])
    without, under = (word(criterion.default(in_config)) for in_config in (False, True))
    if criterion.condition:
        under = f"{word(criterion.switched_on(True))} with a {criterion.condition}"
    key = f"criteria.{criterion.name}"
    return Setting(criterion.name, key, kind, without, criterion.help, "" if under == without else under)


def word(value: Any) -> str:
    """On and off for switches, numbers as people write them, the settings of a record one after the other.

    Example:
        >>> word(False), word(0.25), word(Limit(0.01)), word((1, 2))
        ('off', '0.25', '< 0.01', '1, 2')
    """
    if isinstance(value, bool) or value is None:
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Limit):
        return value.text()
    if isinstance(value, AmpConfig):
        return value.dtype if value.enabled else "off"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(word, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {word(item)}" for name, item in value.items())
    if is_dataclass(value):
        return word({field.name: getattr(value, field.name) for field in fields(value)})
    return str(value)


def keyword_of(key: str) -> str:
    """The keyword of a dotted key below ``overfit:``; the key itself where it has none."""
    names = {dotted: name for name, dotted in keys().items()}
    if key in names:
        return names[key]
    head, _, rest = key.partition(".")
    return rest.removeprefix("terms.") if head == "criteria" else key


def marker_text() -> str:
    """The text of ``pytest --markers``."""
    lines = [f"  {setting.name:<18}{setting.help}: {setting.kind}" for setting in (CONFIG, *table_of_settings())]
    head = "overfit(config=..., max_steps=..., TERM=limit, ...): settings of the test's run (docs/settings.md)"
    return "\n".join([head, *lines, f"  {'TERM':<18}limit of the loss term of that name: {LIMIT}"])
