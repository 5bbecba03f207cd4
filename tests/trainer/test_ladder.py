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
from pytest_overfit.settings.criteria import Criteria, Limit
from pytest_overfit.settings.keywords import MARKER, table_of_settings
from pytest_overfit.settings.ladder import layer_of_keywords, layer_of_overrides
from pytest_overfit.settings.settings import ANY_MODEL, AmpConfig, ClipGroup
from pytest_overfit.trainer.loading import load_config
from tests.trainer.ladder_calls import CALL, RUNGS, SAYS, of_call, resolved

from .helpers import write


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


def test_whether_a_limit_was_stated_is_known() -> None:
    """A default is one that nobody has chosen for this loss."""
    assert not resolved().settings.criteria.objective.stated
    assert resolved(layer_of_keywords(CALL, {"objective": 0.01})).settings.criteria.objective.stated
