"""The tables of --overfit-explain, and the page of all settings."""

from __future__ import annotations

import runpy
from pathlib import Path

from pytest_overfit.settings.explain_settings import Row, explain_lines, explain_settings
from pytest_overfit.settings.keywords import MARKER, table_of_settings
from pytest_overfit.settings.ladder import layer_of_keywords, layer_of_overrides, resolve_settings
from pytest_overfit.settings.settings import OverfitSettings
from pytest_overfit.trainer.explain_config import explain_config
from pytest_overfit.trainer.loading import load_config

from .helpers import write

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_rendered_from_the_table() -> None:
    """docs/settings.md has the tables of docs/settings_tables.py: run that when a definition changes."""
    rendered = runpy.run_path(str(PAGE.with_name("settings_tables.py")))["rendered"]
    page = PAGE.read_text(encoding="utf-8")
    assert rendered(page) == page
    assert rendered(page.replace("the most steps of a run", "")) == page


def test_the_table_states_the_true_defaults(tmp_path: Path) -> None:
    """What the table calls a default is what a run without a word gets."""
    without = {row.setting: row.value for row in explain_settings(resolve_settings([], where="x"))}
    assert without == {setting.name: setting.default for setting in table_of_settings()}
    config = load_config(write(tmp_path, "exp_name: x\n"))
    assert config.overfit == OverfitSettings()
    under = {row.setting: row.value for row in explain_config(config)}
    borrowed = {
        "max_steps": "1000 (max_epochs x steps_per_epoch)",
        "seeds": "42 (seed_value)",
        "amp": "off (optim.amp)",
    }
    for setting in table_of_settings():
        stated = "off" if setting.name == "train_val" else setting.in_config or setting.default
        assert under[f"overfit.{setting.key}"] == borrowed.get(setting.name, stated)


def test_rows_of_a_run_without_a_config() -> None:
    """Every keyword and every term, each with its place."""
    ini = layer_of_overrides("ini", ["overfit.seeds=[1,2]", "overfit.probes.sensitivity=off"])
    marker = layer_of_keywords(MARKER, {"accuracy": {"above": 0.9}, "camera": 1, "unused": ["a", "b.*"]})
    rows = explain_settings(resolve_settings([ini, marker], where="x"))
    assert [row for row in rows if row.source != "default"] == [
        ("seeds", "1, 2", "ini"),
        ("camera", "< 1", MARKER),
        ("unused", "a, b.*", MARKER),
        ("accuracy", "> 0.9", MARKER),
    ]


def test_rows_of_a_config(tmp_path: Path) -> None:
    """Its section, and what else matters; both names of a limit and a change inside of a mapping are found."""
    text = "seed_value: 7\noverfit: {criteria: {loss_camera: 0.2, loss_T: 0.1, monotonic: {window: 5}}, threads: 2}\n"
    config = load_config(
        write(tmp_path, text),
        ["overfit.criteria.monotonic.window=9", "optim.optimizer.lr=1e-3", "overfit.criteria.camera=0.3"],
        ini=["overfit.device=cpu", "overfit.threads=3"],
        settings=[layer_of_keywords(MARKER, {"objective": {"below": 0.1, "relative": True}, "loss_T": 2})],
    )
    rows = {row.setting: tuple(row[1:]) for row in explain_config(config)}
    assert rows["seed_value"] == ("7", "a.yaml")
    assert rows["model._target_"] == ("pytest_overfit.two_view.reference.TwoViewTransformer", "default")
    assert rows["optim.optimizer.lr"] == ("0.001", "command line")
    assert rows["overfit.seeds"] == ("7 (seed_value)", "a.yaml")
    assert rows["overfit.device"] == ("cpu", "ini")
    assert rows["overfit.threads"] == ("2", "a.yaml")
    assert rows["overfit.criteria.monotonic"] == ("window 9, tolerance 0.25, floor 0.003, strict off", "command line")
    assert rows["overfit.criteria.objective"] == ("< 0.1 of its start", MARKER)
    assert rows["overfit.criteria.camera"] == ("< 0.3", "command line")
    assert rows["overfit.criteria.terms.loss_T"] == ("< 2", MARKER)
    assert rows["overfit.criteria.depth"] == ("< 0.01", "default")


def test_the_table_fits_its_width() -> None:
    """Values are cut, names and sources never."""
    lines = explain_lines("t", [Row("name", "x" * 99, "ini"), Row("n", "y", "default")], width=40)
    assert lines == [
        "overfit settings of t",
        "  setting  value                 source",
        f"  name     {'x' * 19}…  ini",
        "  n        y                     default",
    ]
    assert max(map(len, lines)) == 40
