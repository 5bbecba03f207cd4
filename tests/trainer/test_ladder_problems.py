"""Problems of settings: told together, each with its place and in the words of that place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.settings.call_settings import settings_of_call
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.keywords import MARKER
from pytest_overfit.settings.ladder import Layer, layer_of_keywords, layer_of_overrides
from pytest_overfit.settings.settings import Budget
from pytest_overfit.trainer.loading import load_config
from tests.trainer.ladder_calls import CALL, of_call, problems_of, resolved

from .helpers import write


def test_problems_come_together_each_with_its_place() -> None:
    """Keywords are spelt as keywords, overrides in full; a key that two places give is the stronger one's."""
    ini = layer_of_overrides("ini", ["overfit.seeds=[1, 1]", "overfit.threads=many", "overfit.budgt=1"])
    line = layer_of_overrides("command line", ["overfit.threads=none", "overfit.criteria.loss_T=x"])
    marker = layer_of_keywords(
        MARKER, {"max_steps": "many", "accuracy": {"above": "x"}, "device": object, "unbounded": True}
    )
    found = problems_of(ini, line, marker)
    assert [text.partition(": found")[0] for text in found] == [
        "ini: overfit.budgt",
        f"{MARKER}: max_steps",
        "ini: overfit.seeds",
        f"{MARKER}: device",
        "command line: overfit.threads",
        "command line: overfit.criteria.terms.loss_T",
        f"{MARKER}: accuracy.above",
        f"{MARKER}: unbounded",
    ]
    assert f"{MARKER}: max_steps: found 'many', allowed: a whole number of at least 1" in found


@pytest.mark.parametrize(
    ("keywords", "line"),
    [
        ({"max_steps": 3, "hold_steps": 5},
         "hold_steps: found 5, more than the 3 steps of the run, allowed: at most 3"),
        ({"seeds": 1, "pass_at_least": 2},
         "pass_at_least: found 2, more than the number of seeds, allowed: a whole number from 1 to 1"),
        ({"unbounded": True}, "unbounded: found true, allowed: a stated objective limit beside it"),
        ({"allow": ["input-ignore"]},
         "allow: found 'input-ignore', allowed: ids of docs/causes.md; did you mean 'input-ignored'?"),
        ({"diagnose_seconds": 0}, "diagnose_seconds: found 0, allowed: a number above 0"),
        ({"seeds": []}, "seeds: found [], allowed: distinct whole numbers from 0 to 4294967295: one, or a list"),
        ({"monotonic": {"windo": 3}},
         "monotonic.windo: found an unknown key (did you mean window?), allowed: window | tolerance | floor | strict"),
        (dict.fromkeys(("objective", "monotonic", "finite", "gradients", "supervised", "constant_batch"), False),
         "found no limit on any term: nothing asks for learning, allowed: "
         "a limit of the objective or of a term of the loss"),
    ],
)  # fmt: skip
def test_problems_of_keywords(keywords: Mapping[str, Any], line: str) -> None:
    """What is wrong between two settings belongs to the layer that gave one of them."""
    assert problems_of(layer_of_keywords(CALL, keywords)) == [f"{CALL}: {line}"]


def test_a_short_run_holds_as_long_as_it_can() -> None:
    """The default of hold_steps is no problem of a run with fewer steps, the first of which cannot hold."""
    assert of_call(max_steps=3).budget.hold_steps == 2
    assert settings_of_call(None, Budget(max_steps=3), {}).budget.hold_steps == 2
    line = "overfit.budget.hold_steps: found 9, more than the 4 steps of the run, allowed: at most 4"
    ini = layer_of_overrides("ini", ["overfit.budget.hold_steps=9"])
    assert problems_of(ini, layer_of_keywords(CALL, {"max_steps": 4})) == [f"ini: {line}"]


def test_problems_of_keywords_around_a_config(tmp_path: Path) -> None:
    """What a marker says wrongly is not a problem of the file."""
    marker = layer_of_keywords(MARKER, {"max_steps": "many", "loss_T": {"above": "x"}})
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "img_size: 15\n"), settings=[marker])
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == [
        "a.yaml: img_size: found 15, allowed: a multiple of patch_size 14 (such as 14 or 28)",
        f"  {MARKER}: max_steps: found 'many', allowed: a whole number of at least 1",
        f"  {MARKER}: loss_T.above: found 'x', allowed: a number",
        "3 problems in the config",
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [("max_step", "max_steps"), ("objectve", "objective"), ("devices", "device"),
     ("Seeds", "seeds"), ("unbound", "unbounded"), ("stochastc", "stochastic"), ("keep_traind", "keep_trained"),
     ("defect", "defects"), ("alow", "allow"), ("diagnos", "diagnose"), ("diagnos_seconds", "diagnose_seconds")],
)  # fmt: skip
def test_a_misspelt_keyword_is_no_term(name: str, near: str) -> None:
    """It is an error with the nearest valid one, and not a limit on a term that nobody has."""
    with pytest.raises(ConfigError, match=rf"argument {name}\n.*\n  next: did you mean '{near}'\?"):
        layer_of_keywords(MARKER, {name: 1})


@pytest.mark.parametrize(
    "name",
    ["accuracy", "loss_T", "prediction_loss", "objective_1", "map", "precision", "sensitivity", "a/b", "x.y", "n"],
)
def test_any_other_keyword_is_a_term(name: str) -> None:
    """Names that are made of a keyword, or merely like one, included."""
    assert of_call(**{name: 0.5}).criteria.terms == {name: Limit(0.5)}
    assert resolved(layer_of_keywords(CALL, {name: 0.5})).sources[name] == CALL


def test_what_is_no_keyword() -> None:
    """Positional arguments, a config's own keys, `config` outside of the marker, one limit twice."""
    with pytest.raises(
        ConfigError, match=r"@pytest.mark.overfit: arguments 'a.yaml', budget, pair\n  allowed: config="
    ):
        layer_of_keywords(MARKER, {"budget": {}, "pair": 1}, ["a.yaml"])
    with pytest.raises(ConfigError, match=r"argument config\n"):
        layer_of_keywords(CALL, {"config": "a.yaml"})
    with pytest.raises(ConfigError, match="camera beside loss_camera"):
        layer_of_keywords(CALL, {"loss_camera": 1, "camera": 2})
    assert layer_of_keywords(MARKER, {"config": "a.yaml"}) == Layer(MARKER, config="a.yaml")


def test_a_malformed_override_is_told() -> None:
    """With the place it stands in."""
    with pytest.raises(ConfigError, match=r"2 problems in the overrides\n  ini: found override 'x' with no `=`"):
        layer_of_overrides("ini", ["x", "overfit=3"])


def test_none_in_a_call_says_nothing() -> None:
    """What a helper hands on that was told nothing is the default, or what a weaker place says."""
    assert layer_of_keywords(CALL, {"objective": None, "accuracy": None}).values == {}
    marked = layer_of_keywords(MARKER, {"objective": 0.5})
    assert resolved(marked, layer_of_keywords(CALL, {"objective": None})).settings.criteria.objective == Limit(0.5)


@pytest.mark.parametrize("keywords", [{"objective": False}, {"objective": False, "max_steps": 5, "finite": True}])
def test_nothing_asks_for_learning(keywords: Mapping[str, Any]) -> None:
    """Finite numbers and gradients are no proof that anything was learnt."""
    assert problems_of(layer_of_keywords(CALL, keywords)) == [
        f"{CALL}: found no limit on any term: nothing asks for learning, allowed: "
        "a limit of the objective or of a term of the loss"
    ]
