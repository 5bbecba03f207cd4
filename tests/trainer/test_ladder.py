"""The ladder of settings, with and without a config, and the one table of keywords."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.judge.monotonic import Monotonic
from pytest_overfit.judge.train_val import TrainVal
from pytest_overfit.settings.call_settings import settings_of_call
from pytest_overfit.settings.criteria import Criteria, Limit
from pytest_overfit.settings.keywords import MARKER, table_of_settings
from pytest_overfit.settings.ladder import Layer, Resolved, layer_of_keywords, layer_of_overrides, resolve_settings
from pytest_overfit.settings.settings import ANY_MODEL, AmpConfig, Budget, ClipGroup, OverfitSettings
from pytest_overfit.trainer.loading import load_config

from .helpers import write

CALL = "overfit(...)"
SAYS = "overfit.budget.max_steps={}"
# What each rung says of max_steps, weakest first; under a config the file stands in the middle.
RUNGS = ("ini", "file", "command line", MARKER, CALL)


def resolved(*layers: Layer) -> Resolved:
    return resolve_settings(layers, where="test_a.py::test_a")


def of_call(**keywords: Any) -> OverfitSettings:
    return resolved(layer_of_keywords(CALL, keywords)).settings


def problems_of(*layers: Layer) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolved(*layers)
    head, *lines = str(caught.value).splitlines()
    assert head == f"{len(lines)} problem{'s' if len(lines) > 1 else ''} in the settings of test_a.py::test_a"
    return [line.strip() for line in lines]


def test_the_table_is_light() -> None:
    """Settings are known without YAML, OmegaConf and torch."""
    code = "import sys, pytest_overfit.settings.ladder; print({'yaml', 'omegaconf', 'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_nothing_said_is_the_default() -> None:
    """A run without a config and without a word."""
    found = resolved()
    assert found.settings == ANY_MODEL
    assert {*found.sources.values()} == {"default"}
    assert [*found.sources] == [setting.name for setting in table_of_settings()]


@pytest.mark.parametrize("strongest", [None, "ini", "command line", MARKER, CALL])
def test_the_ladder_without_a_config(strongest: str | None) -> None:
    """Every rung wins over those before it, and is named as the source."""
    rungs = [rung for rung in RUNGS if rung != "file"]
    count = 0 if strongest is None else rungs.index(strongest) + 1
    layers = [
        layer_of_keywords(rung, {"max_steps": 10 + step})
        if rung in (MARKER, CALL)
        else layer_of_overrides(rung, [SAYS.format(10 + step)])
        for step, rung in enumerate(rungs[:count])
    ]
    found = resolved(*layers)
    assert found.settings.budget.max_steps == (9 + count if count else 1000)
    assert found.sources["max_steps"] == (strongest or "default")


@pytest.mark.usefixtures("composer")
@pytest.mark.parametrize("defaults", ["", "defaults: [base, _self_]\n"])
@pytest.mark.parametrize("strongest", [None, *RUNGS])
def test_the_ladder_around_a_config(tmp_path: Path, strongest: str | None, defaults: str) -> None:
    """The file stands above the ini file and below the rest; its origin is told."""
    said = RUNGS[: RUNGS.index(strongest) + 1] if strongest else ()
    steps = {rung: 10 + step for step, rung in enumerate(RUNGS)}
    write(tmp_path, "max_epochs: 3\n", "base.yaml")
    body = f"overfit: {{budget: {{max_steps: {steps['file']}}}}}" if "file" in said else "exp_name: x"
    config = load_config(
        write(tmp_path, f"{defaults}{body}\n"),
        [SAYS.format(steps["command line"])] if "command line" in said else [],
        ini=[SAYS.format(steps["ini"])] if "ini" in said else [],
        settings=[layer_of_keywords(rung, {"max_steps": steps[rung]}) for rung in (MARKER, CALL) if rung in said],
    )
    assert config.overfit.budget.max_steps == (steps[strongest] if strongest else None)
    names = {None: "default", "file": "a.yaml", "command line": "override overfit.budget.max_steps=12"}
    assert config.origin("overfit.budget.max_steps") == names.get(strongest, strongest)


@pytest.mark.parametrize(
    ("body", "ini", "seen"),
    [
        ("overfit: {device: cpu}", ["overfit={device: cuda, threads: 2}"], {"device": "cpu", "threads": 2}),
        ("overfit: {budget: null}", ["overfit.budget.max_steps=3", "overfit.budget.hold_steps=1"], {}),
        ("overfit: {device: '???'}", ["overfit.device=cpu"], {"device": "cpu"}),
        ("overfit: {device: null}", ["overfit.device=cpu"], {"device": "auto"}),
        ("exp_name: x", ["overfit.threads=2", "overfit.threads=3"], {"threads": 3}),
        (
            "a: {threads: 5}\noverfit: ${a}",
            ["overfit.device=cpu", "overfit.threads=1"],
            {"device": "cpu", "threads": 5},
        ),
        ("overfit: {device: '${oc.env:NO_SUCH,mps}'}", ["overfit.device=cpu"], {"device": "mps"}),
        ("overfit: {criteria: {loss_camera: 2}}", ["overfit.criteria.camera=1"], {}),
    ],
)
def test_the_ini_file_fills_what_the_file_leaves_open(
    tmp_path: Path, body: str, ini: Sequence[str], seen: Mapping[str, Any]
) -> None:
    """Key by key; null is a word of the file, `???` is none, and the later of two ini lines wins."""
    settings = load_config(write(tmp_path, f"{body}\n"), ini=ini).overfit
    assert {name: getattr(settings, name) for name in seen} == seen


def test_the_ini_file_cannot_compose(tmp_path: Path) -> None:
    """It is weaker than the file: there is nothing to remove, and no group to choose."""
    for text in ("~overfit.device", "model/size=big", "hydra.searchpath=[x]"):
        with pytest.raises(ConfigError, match="of the ini file, allowed: key=value there"):
            load_config(write(tmp_path, "exp_name: x\n"), ini=[text])


@pytest.mark.parametrize(
    ("body", "overrides"),
    [
        ("overfit: {criteria: {loss_camera: 2, terms: {loss_T: 1}}}",
         ["overfit.criteria.camera=3", "overfit.criteria.loss_T=4"]),
        ("overfit: {criteria: {camera: 2, loss_T: 1}}",
         ["overfit.criteria.loss_camera=3", "overfit.criteria.terms.loss_T=4"]),
    ],
)  # fmt: skip
def test_both_names_of_a_limit_are_one_setting(tmp_path: Path, body: str, overrides: Sequence[str]) -> None:
    """A stronger place wins whichever name it uses."""
    criteria = load_config(write(tmp_path, f"{body}\n"), overrides).overfit.criteria
    assert (criteria.camera, criteria.terms) == (Limit(3.0), {"loss_T": Limit(4.0)})
    marker = layer_of_keywords(MARKER, {"camera": 5, "loss_T": 6})
    criteria = load_config(write(tmp_path, f"{body}\n"), overrides, settings=[marker]).overfit.criteria
    assert (criteria.camera, criteria.terms) == (Limit(5.0), {"loss_T": Limit(6.0)})


def test_a_keyword_replaces_and_an_override_merges(tmp_path: Path) -> None:
    """`objective={"above": 2}` says all of the limit; `overfit.criteria.objective.above=2` only that of it."""
    ini = layer_of_overrides("ini", ["overfit.criteria.objective.below=9"])
    text = layer_of_overrides("command line", ["overfit.criteria.objective.above=2"])
    word = layer_of_keywords(MARKER, {"objective": {"above": 2}})
    assert resolved(ini, text).settings.criteria.objective == Limit(9.0, 2.0)
    assert resolved(ini, word).settings.criteria.objective == Limit(above=2.0)
    path = write(tmp_path, "overfit: {criteria: {objective: {below: 9, window: 3}}}\n")
    assert load_config(path, settings=[word]).overfit.criteria.objective == Limit(above=2.0)
    assert load_config(path, ["overfit.criteria.objective.above=2"]).overfit.criteria.objective == Limit(9, 2, window=3)


def test_what_interpolates_a_setting_follows_a_marker(tmp_path: Path) -> None:
    """Keywords are written before `${...}` is resolved."""
    path = write(tmp_path, "max_epochs: ${overfit.budget.max_steps}\noverfit: {budget: {max_steps: 7}}\n")
    assert load_config(path, settings=[layer_of_keywords(MARKER, {"max_steps": 9})]).max_epochs == 9


def test_every_keyword_arrives() -> None:
    """With Python's values: tuples, numpy's numbers, torch's names."""
    np, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    found = of_call(
        objective=np.float32(0.5),
        max_steps=np.int64(7),
        hold_steps=2,
        seeds=range(3),
        pass_at_least=2,
        device=torch.device("cuda:1"),
        amp=torch.float16,
        threads=2,
        keep_trained=True,
        monotonic={"window": 5},
        finite=False,
        supervised=False,
        unused=("a.*",),
        frozen="b",
        stochastic=True,
        defects=False,
        allow=("input-ignored",),
        diagnose=False,
        diagnose_seconds=np.float64(1.5),
        camera=-1,
        loss_depth=2,
        accuracy={"above": 0.9},
    )
    wanted = Criteria(
        objective=Limit(0.5),
        camera=Limit(-1.0),
        depth=Limit(2.0),
        terms={"accuracy": Limit(above=0.9)},
        monotonic=Monotonic(5, floor=0.05),
        finite=False,
        supervised=None,
        unused=("a.*",),
        frozen=("b",),
        stochastic=True,
        defects=False,
        allow=("input-ignored",),
    )
    assert found.criteria == wanted
    assert (found.seeds, found.pass_at_least, found.device, found.threads) == ((0, 1, 2), 2, "cuda:1", 2)
    assert (found.amp, found.keep_trained) == (AmpConfig(True, "float16"), True)
    assert (found.budget.max_steps, found.budget.hold_steps) == (7, 2)
    assert (found.diagnose, found.diagnose_seconds) == (False, 1.5)


def test_a_criterion_of_configs_alone_is_refused() -> None:
    """Without a config there is no two-view prediction to compare with the truth."""
    with pytest.raises(ConfigError, match="prediction: found true, allowed: false: only a run under a config"):
        of_call(prediction=True)
    assert of_call(prediction=False).criteria.prediction is None


def test_a_call_may_freeze_clip_and_compare_with_evaluation() -> None:
    """One norm is that of all gradients together; a mapping has one per glob."""
    found = of_call(freeze="backbone.*", clip_grad_norm=1, train_val={"tolerance": 0.2})
    assert found.freeze == ("backbone.*",)
    assert found.clip_grad_norm == (ClipGroup(("*",), 1.0),)
    assert found.criteria.train_val == TrainVal(0.2)
    groups = of_call(clip_grad_norm={"head": 0.5, "body.*": 2}).clip_grad_norm
    assert groups == (ClipGroup(("head",), 0.5), ClipGroup(("body.*",), 2.0))
    with pytest.raises(ConfigError, match="clip_grad_norm: found -1, allowed: a number above 0, or a mapping of globs"):
        of_call(clip_grad_norm=-1)


def test_overrides_of_configs_alone_are_passed_over() -> None:
    """The session's overrides are for configs too."""
    texts = ["optim.optimizer.lr=1", "~overfit.device", "model/size=big", "overfit.seeds=4"]
    assert layer_of_overrides("ini", texts).values == {"seeds": 4}


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
         "monotonic.windo: found an unknown key, allowed: window | tolerance | floor | strict (did you mean window?)"),
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


def test_whether_a_limit_was_stated_is_known() -> None:
    """A default is one that nobody has chosen for this loss."""
    assert not resolved().settings.criteria.objective.stated
    assert resolved(layer_of_keywords(CALL, {"objective": 0.01})).settings.criteria.objective.stated
