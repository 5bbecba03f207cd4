"""What the settings of a config's run are and where each comes from, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.settings.criteria_registry import limit_aliases
from pytest_overfit.settings.explain_settings import Row, settings_values
from pytest_overfit.settings.keywords import COMMAND_LINE, keys, keyword_of, lookup, spelt
from pytest_overfit.settings.secret import HIDDEN, hide
from pytest_overfit.trainer.config import OverfitConfig

_OVERRIDE = "override "
_PAIR = ("pair.source", "pair.pair_index", "steps_per_epoch", "half_pixel_depth")
_PROBES = ("probes.sensitivity", "probes.gradient_every")


def explain_config(config: OverfitConfig) -> tuple[Row, ...]:
    """What matters to a config's run: model, loss, optimizer, seed and sizes, then its whole ``overfit:`` section."""
    rows = [Row(key, value, _source(config, key)) for key, value in _trainer_values(config)]
    pair, probes = ({name: spelt(lookup(config.overfit, name)) for name in names} for names in (_PAIR, _PROBES))
    values = {**pair, **dict(settings_values(config.overfit)), **probes}
    overfit = config.overfit
    borrowed = {
        "max_steps": (overfit.budget.max_steps, f"{config.planned_steps} (max_epochs x steps_per_epoch)", "max_epochs"),
        "seeds": (overfit.seeds or None, f"{config.seed} (seed_value)", "seed_value"),
        "lr": (overfit.lr, "optim.optimizer.lr", "optim.optimizer.lr"),
        "amp": (overfit.amp, f"{spelt(config.amp)} (optim.amp)", "optim.amp"),
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


def _trainer_values(config: OverfitConfig) -> Iterator[tuple[str, str]]:
    """What matters to a run besides its ``overfit:`` section."""
    yield from (("exp_name", spelt(config.exp_name)), ("seed_value", spelt(config.seed)))
    yield from ((name, spelt(getattr(config, name))) for name in ("img_size", "patch_size", "max_epochs"))
    for section, node in (("model", config.model), ("loss", config.loss), ("optim.optimizer", config.optimizer)):
        shown = ("_target_", "lr", "weight_decay") if section == "optim.optimizer" else ("_target_",)
        yield from ((f"{section}.{name}", spelt(node[name])) for name in shown if name in node)
    yield "optim.frozen_module_names", spelt(config.frozen_module_names)
    for name, schedule in (("lr", config.lr_schedule), ("weight_decay", config.weight_decay_schedule)):
        if schedule is not None:
            yield f"optim.options.{name}", str(schedule.get("_target_"))


def _source(config: OverfitConfig, key: str) -> str:
    """Where a setting comes from; of a mapping, where something in it was changed last."""
    within = [text for name in _names_of(key) for part, text in config.origins.items() if part.startswith(f"{name}.")]
    exact = [source for name in _names_of(key) if (source := config.origin(name)) not in ("default", config.path.name)]
    given = [source for name in _names_of(key) if (source := config.origin(name)) != "default"]
    source = (exact or within or given[:1] or ["default"])[-1]
    return COMMAND_LINE if source.startswith(_OVERRIDE) else source


def _names_of(key: str) -> tuple[str, ...]:
    """The key of a limit, and its second name in a config."""
    head, _, name = key.rpartition(".")
    aliases = [alias for alias, meant in limit_aliases().items() if head == "overfit.criteria" and meant == name]
    if key.startswith("overfit.criteria.terms."):
        aliases.append(f"{keyword_of(key.removeprefix('overfit.'))}")
    return (key, *(f"overfit.criteria.{alias}" for alias in aliases))
