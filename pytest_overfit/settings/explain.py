"""What a run's settings are and where each comes from, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pytest_overfit.errors.suggest import printable
from pytest_overfit.settings.criteria_registry import limit_aliases
from pytest_overfit.settings.keywords import COMMAND_LINE, keys, keyword_of, table_of_settings, word
from pytest_overfit.settings.ladder import Resolved
from pytest_overfit.settings.secret import HIDDEN, hide
from pytest_overfit.settings.settings import OverfitSettings
from pytest_overfit.trainer.config import OverfitConfig

_OVERRIDE = "override "
_SHORTEST = 12  # signs of a value that are always shown
# What matters to a run besides its ``overfit:`` section.
_TRAINER = (
    "exp_name",
    "seed_value",
    "img_size",
    "patch_size",
    "max_epochs",
    "model._target_",
    "loss._target_",
    "optim.optimizer._target_",
    "optim.optimizer.lr",
    "optim.optimizer.weight_decay",
    "optim.frozen_module_names",
)
_PAIR = ("pair.source", "pair.pair_index", "steps_per_epoch", "half_pixel_depth")
_PROBES = ("probes.sensitivity", "probes.gradient_every")


class Row(NamedTuple):
    """One setting of a resolved run."""

    setting: str
    value: str
    source: str


def explain_settings(resolved: Resolved) -> tuple[Row, ...]:
    """Every setting of a run without a config, by keyword, then every limit of a term.

    Example:
        >>> from pytest_overfit.settings.keywords import MARKER
        >>> from pytest_overfit.settings.ladder import layer_of_keywords, resolve_settings
        >>> explain_settings(resolve_settings([layer_of_keywords(MARKER, {"max_steps": 50})], where=""))[1]
        Row(setting='max_steps', value='50', source='@pytest.mark.overfit')
    """
    values = {name: value_text(name, value) for name, value in _values(resolved.settings)}
    values["seeds"] = values["seeds"] if resolved.settings.seeds else "0"
    return tuple(Row(name, values[name], source) for name, source in resolved.sources.items() if name in values)


def explain_config(config: OverfitConfig) -> tuple[Row, ...]:
    """What matters to a config's run: model, loss, optimizer, seed and sizes, then its whole ``overfit:`` section."""
    rows = [Row(key, value, _source(config, key)) for key, value in _trainer_values(config)]
    pinned = {name: _lookup(config.overfit, name) for name in _PAIR}
    probes = {name: _lookup(config.overfit, name) for name in _PROBES}
    values = {
        **{name: word(value) for name, value in pinned.items()},
        **{name: value_text(name, value) for name, value in _values(config.overfit)},
        **{name: word(value) for name, value in probes.items()},
    }
    overfit = config.overfit
    borrowed = {
        "max_steps": (overfit.budget.max_steps, f"{config.planned_steps} (max_epochs x steps_per_epoch)", "max_epochs"),
        "seeds": (overfit.seeds or None, f"{config.seed} (seed_value)", "seed_value"),
        "amp": (overfit.amp, f"{word(config.amp)} (optim.amp)", "optim.amp"),
    }
    for name, value in values.items():
        key = keys().get(name, name)
        key = f"criteria.terms.{name}" if name in overfit.criteria.terms else key
        given, stand_in, origin = borrowed.get(name, (value, "", ""))
        if given is None:
            rows.append(Row(f"overfit.{key}", stand_in, _source(config, origin)))
        else:
            rows.append(Row(f"overfit.{key}", value, _source(config, f"overfit.{key}")))
    return tuple(_told(row, config, borrowed) for row in rows)


def _told(row: Row, config: OverfitConfig, borrowed: Mapping[str, tuple[Any, str, str]]) -> Row:
    """A row without a value that nobody is shown."""
    origin = next(
        (origin for given, _, origin in borrowed.values() if given is None and f"({origin})" in row.value), ""
    )
    hidden = any(f"{key}.".startswith((f"{row.setting}.", f"{row.setting}[")) for key in config.hidden)
    return row._replace(value=HIDDEN if hidden or origin in config.hidden else hide(row.value, config.secrets))


def explain_lines(title: str, rows: Sequence[Row], width: int = 120, notes: Sequence[str] = ()) -> list[str]:
    """Rows as an aligned table under a title; values are cut where the line would be wider than ``width``. Then notes.

    Example:
        >>> for line in explain_lines("test_a", [Row("max_steps", "50", "ini"), Row("device", "model", "default")]):
        ...     print(line)
        overfit settings of test_a
          setting    value  source
          max_steps  50     ini
          device     model  default
    """
    table = [Row("setting", "value", "source"), *rows]
    first, last = (max(len(row[column]) for row in table) for column in (0, 2))
    room = max(_SHORTEST, width - first - last - 6)
    values = [row.value if len(row.value) <= room else f"{row.value[: room - 1]}…" for row in table]
    middle = max(map(len, values))
    lines = [
        f"  {row.setting:<{first}}  {value:<{middle}}  {row.source}" for row, value in zip(table, values, strict=True)
    ]
    return list(map(printable, [f"overfit settings of {title}", *lines, *(f"  note: {note}" for note in notes)]))


def value_text(name: str, value: Any) -> str:
    """The value of a setting as the tables show it."""
    if value is None:
        return {
            "max_seconds": "none",
            "max_steps": "none",
            "pass_at_least": "all",
            "diagnose_seconds": "three times all steps, at least 2",
        }.get(name, "off")
    return word(value)


def _values(settings: OverfitSettings) -> Iterator[tuple[str, Any]]:
    for setting in table_of_settings():
        yield setting.name, _lookup(settings, setting.key)
    yield from settings.criteria.terms.items()


def _lookup(record: Any, key: str) -> Any:
    for part in key.split("."):
        record = getattr(record, part)
    return record


def _trainer_values(config: OverfitConfig) -> Iterator[tuple[str, str]]:
    known = {
        "exp_name": config.exp_name,
        "seed_value": config.seed,
        "img_size": config.img_size,
        "patch_size": config.patch_size,
        "max_epochs": config.max_epochs,
        "optim.frozen_module_names": config.frozen_module_names,
    }
    sections = {"model": config.model, "loss": config.loss, "optim.optimizer": config.optimizer}
    for key in _TRAINER:
        section, _, name = key.rpartition(".")
        if key in known:
            yield key, word(known[key])
        elif name in sections[section]:
            yield key, word(sections[section][name])
    for name, schedule in (("lr", config.lr_schedule), ("weight_decay", config.weight_decay_schedule)):
        if schedule is not None:
            yield f"optim.options.{name}", str(schedule.get("_target_"))


def _source(config: OverfitConfig, key: str) -> str:
    """Where a setting comes from; of a mapping, where something in it was changed last."""
    within = [text for name in _names_of(key) for part, text in config.origins.items() if part.startswith(f"{name}.")]
    exact = [source for name in _names_of(key) if (source := config.origin(name)) not in ("default", config.path.name)]
    source = (exact or within or [_first_given(config, key)])[-1]
    return COMMAND_LINE if source.startswith(_OVERRIDE) else source


def _first_given(config: OverfitConfig, key: str) -> str:
    return next((text for name in _names_of(key) if (text := config.origin(name)) != "default"), "default")


def _names_of(key: str) -> tuple[str, ...]:
    """The key of a limit, and its second name in a config."""
    head, _, name = key.rpartition(".")
    aliases = [alias for alias, meant in limit_aliases().items() if head == "overfit.criteria" and meant == name]
    if key.startswith("overfit.criteria.terms."):
        aliases.append(f"{keyword_of(key.removeprefix('overfit.'))}")
    return (key, *(f"overfit.criteria.{alias}" for alias in aliases))
