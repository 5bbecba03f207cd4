"""What came out of the environment, or is called a secret, is shown in no message, table or note."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.settings.secret import Secret, hide, told_override
from pytest_overfit.trainer.build import build_model
from pytest_overfit.trainer.explain_config import explain_config
from pytest_overfit.trainer.loading import load_config

from .helpers import load, write

pytestmark = pytest.mark.usefixtures("composer")
TOKEN = "sk-live-0123456789abcdef"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret of this machine, a number, and a folder."""
    for name, value in {"HUB_TOKEN": TOKEN, "RATE": "1e-4", "DATA": "/no/such/data"}.items():
        monkeypatch.setenv(name, value)


LONG = f"{'x' * 110}${{oc.env:HUB_TOKEN}}"
ECHOES = [
    "max_epochs: ${oc.env:HUB_TOKEN}\n",
    "max_epochs: ${oc.env:NOT_SET,sk-live-0123456789abcdef}\n",
    "max_epochs: ${oc.decode:${oc.env:HUB_TOKEN}}\n",
    "max_epochs: ['${oc.env:HUB_TOKEN}']\n",
    "max_epochs: {a: {b: 'Bearer ${oc.env:HUB_TOKEN}'}}\n",
    "hub: {t: '${oc.env:HUB_TOKEN}'}\nmax_epochs: ${hub}\n",
    "t: ${oc.env:HUB_TOKEN}\nu: ${t}\nmax_epochs: a${u}b\n",
    "k: t\nm: {t: '${oc.env:HUB_TOKEN}'}\nmax_epochs: ${m.${k}}\n",
    f"max_epochs: {LONG}\n",
    "max_epochs: ${oc.decode:'[${oc.env:HUB_TOKEN}'}\n",
    "overfit: {device: '${oc.env:HUB_TOKEN}', amp: '${oc.env:HUB_TOKEN}', seeds: ['${oc.env:HUB_TOKEN}']}\n",
    "overfit: {criteria: {objective: '${oc.env:HUB_TOKEN}', allow: ['${oc.env:HUB_TOKEN}']}}\n",
    "model: {_target_: '${oc.env:HUB_TOKEN}'}\n",
    "optim: {amp: {amp_dtype: '${oc.env:HUB_TOKEN}'}, frozen_module_names: {a: '${oc.env:HUB_TOKEN}'}}\n",
    "checkpoint: {strict: '${oc.env:HUB_TOKEN}'}\nlogging: {log_freq: '${oc.env:HUB_TOKEN}'}\n",
]


@pytest.mark.parametrize("text", ECHOES)
def test_a_secret_in_the_wrong_slot_is_not_echoed(tmp_path: Path, text: str) -> None:
    """Whatever way it comes, the error shows the key and three stars."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert TOKEN not in str(caught.value)
    assert TOKEN[:9] not in str(caught.value).replace("oc.env:NOT_SET,sk-live", "")
    assert "***" in str(caught.value) or "cannot be resolved" in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [f"max_epochs={TOKEN}"],
        [f"max_epochs.api_key=[{TOKEN}"],
        [f"exp_name.token={TOKEN}"],
        [f"hub={{token: {TOKEN}}}", "max_epochs=${hub}"],
        [f"img_size={{password: '{TOKEN}'}}"],
        [f"data.train.dataset.dataset_configs[7].secret={TOKEN}"],
        [f"a/b={TOKEN}"],
    ],
)
def test_a_secret_of_the_command_line_is_not_echoed(tmp_path: Path, overrides: Sequence[str]) -> None:
    """One that is a variable of the environment letter by letter, or whose key says what it is."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "exp_name: x\n", overrides)
    assert TOKEN not in str(caught.value)


def test_tables_and_notes_show_stars(tmp_path: Path) -> None:
    """A setting that came out of the environment is hidden whatever it is; the run has the value itself."""
    text = """\
    exp_name: ${oc.env:HUB_TOKEN}
    optim: {optimizer: {lr: '${oc.env:RATE}'}}
    model: {_target_: a.B, hub: 'https://u:${oc.env:HUB_TOKEN}@hub', deep: [{t: '${oc.env:HUB_TOKEN}'}]}
    data: {train: {common_config: {rescale_aug: '${oc.env:HUB_TOKEN}', fix_img_num: 2, fix_aspect_ratio: 1,
                                   augs: {scales: [1, '${oc.env:HUB_TOKEN}']}}}}
    """
    config = load(tmp_path, text)
    rows = {row.setting: row.value for row in explain_config(config)}
    assert (rows["exp_name"], rows["optim.optimizer.lr"]) == ("***", "***")
    assert TOKEN not in "".join((*config.notes, *config.randomness, repr(explain_config(config))))
    assert (config.exp_name, config.optimizer["lr"]) == ("***", 1e-4)
    assert config.model["deep"] == [{"t": TOKEN}]
    assert {type(config.model["hub"]), type(config.model["deep"][0]["t"]), type(config.exp_name)} == {str}


def test_values_beside_a_secret_are_shown(tmp_path: Path) -> None:
    """Only what came from there is hidden, also where a whole section is referred to."""
    text = "a: {t: '${oc.env:HUB_TOKEN}', seed: 3}\nb: ${a}\nseed_value: ${b.seed}\n"
    config = load(tmp_path, text)
    assert config.hidden == {"a.t", "b.t"}
    assert {row.setting: row.value for row in explain_config(config)}["seed_value"] == "3"


def test_a_path_of_the_environment_is_shown_in_the_problem_of_its_file(tmp_path: Path) -> None:
    """Tables hide it; whoever looks for the file reads which one."""
    with pytest.raises(ConfigError, match=r"/no/such/data/start\.pt"):
        load(tmp_path, "checkpoint: {resume_checkpoint_path: '${oc.env:DATA}/start.pt'}\n")
    text = "overfit: {pair: {source: cut, source_root: '${oc.env:DATA}'}}\n"
    config = load(tmp_path, text)
    assert config.hidden == {"overfit.pair.source_root"}
    assert not config.secrets


def test_origins_do_not_hold_what_an_override_hides(tmp_path: Path) -> None:
    """Where a value comes from is told without the value."""
    config = load_config(write(tmp_path, "exp_name: x\n"), [f"model.token={TOKEN}", "model._target_=a.B"])
    assert config.origin("model.token") == "override model.token=***"
    assert config.model["token"] == TOKEN


def test_a_class_that_refuses_a_secret_does_not_print_it(tmp_path: Path) -> None:
    """What cannot be built is told without it."""
    config = load(tmp_path, "model: {_target_: builtins.int, x: '${oc.env:HUB_TOKEN}'}\n")
    with pytest.raises(OverfitError) as caught:
        build_model(config)
    assert TOKEN not in str(caught.value)
    text = "model: {_target_: torch.device, _args_: ['${oc.env:HUB_TOKEN}']}\n"
    with pytest.raises(OverfitError) as caught:
        build_model(load(tmp_path, text))
    assert TOKEN not in str(caught.value)
    assert "***" in str(caught.value)


def test_short_values_are_hidden_by_their_key_alone() -> None:
    """A text holds a short one by chance: it is not searched for."""
    assert hide("seed 1 of sk-123456", ["1", "sk-123456"]) == "seed 1 of ***"
    assert hide("a\\nb", ["a\nb" + "c" * 9]) == "a\\nb"
    assert repr([Secret("x")]) == "[***]"
    assert told_override("seed_value=1") == "seed_value=1"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("run-${oc.env:HUB_TOKEN}", "run-***"),
        ("${oc.env:SHORT}-${oc.env:HUB_TOKEN}-b", "***-***-b"),
        ("run-${oc.env:SHORT}", "run-***"),
        ("${oc.env:HUB_TOKEN}", "***"),
        ("${oc.env:SHORT}", "***"),
        ("${mine}_x", "***_x"),
        ("run-${img_size}", "run-56"),
        ("run-7q", "run-7q"),
    ],
)
def test_a_name_out_of_the_environment_is_masked(
    tmp_path: Path, text: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the name of the log folder, is printed, and is in the record: what of it is nobody's business is stars."""
    monkeypatch.setenv("SHORT", "7q")
    config = load(tmp_path, f"img_size: 56\nmine: ${{oc.env:HUB_TOKEN}}\nexp_name: {text}\n")
    assert config.exp_name == name
    assert type(config.exp_name) is str
    assert TOKEN not in "".join(map(str, explain_config(config)))


def test_a_name_that_an_override_has_out_of_the_environment(tmp_path: Path) -> None:
    """The shell put it there; a name of one's own is shown."""
    assert load(tmp_path, "img_size: 56\n", [f"exp_name={TOKEN}"]).exp_name == "***"
    assert load(tmp_path, "img_size: 56\n", ["exp_name=mine"]).exp_name == "mine"
