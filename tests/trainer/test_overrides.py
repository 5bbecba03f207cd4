"""`--overfit-set key=value`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .helpers import load, problems_in, write

pytestmark = pytest.mark.usefixtures("composer")

DATASET = """\
exp_name: x
img_size: 224
data:
  train:
    dataset:
      dataset_configs:
        - {ROOT: /old, split_file: "${.ROOT}/train.npz", remove_sky: true}
  val:
    dataset: ${data.train.dataset}
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("new=1", 1), ("new=-2.5", -2.5), ("new=1e5", 1e5), ("new=true", True), ("new=null", None), ("new=", ""),
        ("new=a b c", "a b c"), ("new='a, b'", "a, b"), ('new="1"', "1"), ("new=[1,2,{a: b}]", [1, 2, {"a": "b"}]),
        ("new={a: 1, b: [x, null]}", {"a": 1, "b": ["x", None]}), ("new=${img_size}", 224), ("new=*agg*", "*agg*"),
        ("new=['*a*', 'b c']", ["*a*", "b c"]), ("new=[*a*,b.*]", ["*a*", "b.*"]),
        ("new={a:1,b:2}", {"a": 1, "b": 2}), ("new={a: {b:[1]}, 'c d': é}", {"a": {"b": [1]}, "c d": "é"}),
        ("new=[${img_size},${oc.decode:'[1,2]'}]", [224, [1, 2]]), ("new=${oc.decode:'[1, 2]'}", [1, 2]),
        ("new=x=1", "x=1"), ("new=a: b", "a: b"), ("new=#1", "#1"), ("new=(1", "(1"), ("new='it''s'", "it's"),
        ('new="a\\tb"', "a\tb"), ("new=[]", []), ("new={}", {}), ("new=[1, 2,]", [1, 2]), ("new= 3 ", 3),
        ("new=[a b, c=d]", ["a b", "c=d"]), ("new='1,2'", "1,2"), ("new={1: x}", {1: "x"}), ("new=it's", "it's"),
        ("new={a:http://x:80/y}", {"a": "http://x:80/y"}), ("new=-", "-"), ("new=True", True), ("new=~", None),
    ],
)  # fmt: skip
def test_values(tmp_path: Path, text: str, value: Any) -> None:
    """Values are read as people type them, and reach the tree as plain containers."""
    found = load(tmp_path, DATASET, [text]).resolved["new"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["1e-4", "1e5", "1E5", "-.5", "+1", "0x10", "010", "1_000", "1:30", ".inf", "inf", "on", "off", "yes", "No", "y",
     "~", "null", "Null", "2024-01-01", "1.2.3", "v1", "cuda:0", "1e", "0b11", "..", "a-b"],
)  # fmt: skip
def test_values_are_read_as_in_a_file(tmp_path: Path, text: str) -> None:
    """The same text gives the same value from a file, from an override, and inside of a list or a mapping."""
    from_file = load(tmp_path, f"new: {text}\n").resolved["new"]
    overrides = [f"new={text}", f"list=[{text}]", f"mapping={{a:{text}}}"]
    found = load(tmp_path, "exp_name: x\n", overrides).resolved
    for value in (found["new"], found["list"][0], found["mapping"]["a"]):
        assert (value, type(value)) == (from_file, type(from_file))


@pytest.mark.parametrize("defaults", ["", "defaults: [base, _self_]\n"])
@pytest.mark.parametrize("key", ["dataset_configs[0].ROOT", "dataset_configs.0.ROOT"])
def test_list_index_before_interpolation(tmp_path: Path, key: str, defaults: str) -> None:
    """An index in the key reaches into a list, and what interpolates the value follows."""
    write(tmp_path, "max_epochs: 3\n", "base.yaml")
    config = load(tmp_path, defaults + DATASET, [f"data.train.dataset.{key}=/new"])
    assert config.val is not None
    assert (config.train.root, config.train.split_file) == (Path("/new"), Path("/new/train.npz"))
    assert config.val.root == Path("/new")


def test_below_an_interpolation(tmp_path: Path) -> None:
    """A key below `${...}` changes a copy: what it points at stays as it is."""
    config = load(tmp_path, DATASET, ["data.val.dataset.dataset_configs[0].remove_sky=false"])
    assert config.val is not None
    assert (config.train.remove_sky, config.val.remove_sky, config.val.root) == (True, False, Path("/old"))


def test_below_an_alias(tmp_path: Path) -> None:
    """What a file says once for two places by a YAML alias is two things to an override."""
    text = "data: {train: &split {common_config: {fix_aspect_ratio: 1}}, val: *split}\n"
    config = load(tmp_path, text, ["data.val.common_config.fix_aspect_ratio=0.5"])
    assert config.val is not None
    assert (config.train.aspect_ratio, config.val.aspect_ratio) == (1, 0.5)


def test_new_nested_keys(tmp_path: Path) -> None:
    """Keys whose sections do not exist yet are made, lists included; a next index appends."""
    overrides = ["overfit.budget.max_steps=7", "data.train.dataset.dataset_configs[0].max_depth=9", "l[0]=1", "l[1]=2"]
    config = load(tmp_path, "exp_name: x\n", overrides)
    assert (config.overfit.budget.max_steps, config.train.max_depth, config.resolved["l"]) == (7, 9.0, [1, 2])


def test_mappings_are_merged(tmp_path: Path) -> None:
    """A mapping given for a mapping changes only the keys that it names."""
    config = load(tmp_path, "loss: {camera: {weight: 1, loss_type: l2}}\n", ["loss={camera: {weight: 2}}"])
    assert config.loss["camera"] == {"weight": 2.0, "loss_type": "l2"}


def test_last_one_wins(tmp_path: Path) -> None:
    """Of two overrides of a key the later one counts."""
    assert load(tmp_path, DATASET, ["img_size=14", "img_size=28"]).img_size == 28


@pytest.mark.parametrize("path", ["~/data", "/tmp/é/run (1)", "/a=b", "../up[1]", "./x"])
def test_plain_paths(tmp_path: Path, path: str) -> None:
    """A path needs no quotes."""
    config = load(tmp_path, DATASET, [f"data.train.dataset.dataset_configs[0].ROOT={path}"])
    assert config.train.root == tmp_path / Path(path).expanduser()


def test_origins(tmp_path: Path) -> None:
    """A config knows which of its values came from an override, from the file, or from the defaults."""
    config = load(tmp_path, DATASET, ["data.train.dataset.dataset_configs[0]={ROOT: /new}", "seed_value=7"])
    assert config.origin("seed_value") == "override seed_value=7"
    assert config.origin("data.train.dataset.dataset_configs[0].ROOT") == (
        "override data.train.dataset.dataset_configs[0]={ROOT: /new}"
    )
    assert config.origin("img_size") == "a.yaml"
    assert config.origin("overfit.budget.max_steps") == "default"


FORM = "key=value (a list is key=[1,2]; a mapping key={a: 1}; text with a comma in quotes)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("img_size", "no `=`"),
        ("=3", "the key ''"),
        ("a..b=3", "the key 'a..b'"),
        ("a[x]=3", "the key 'a[x]'"),
        ("a b=3", "the key 'a b'"),
        ("a=[1,2", "the value '[1,2'"),
        ("a=[a: 1]", "the value '[a: 1]'"),
        ("a=[1] x", "the value '[1] x'"),
        ("a={b}", "the value '{b}'"),
        ("a={b: 1, b: 2}", "the value '{b: 1, b: 2}'"),
        ("a=${b", "the value '${b'"),
        ("a='b", 'the value "\'b"'),
        ("a=int(3)", "the value 'int(3)'"),
        ("a=1,2", "several values"),
        ("a=/x,/y", "several values"),
        ("a=[1],[2]", "several values"),
        ("a='x','y'", "several values"),
        ("a=range(1,4)", "several values"),
        ("a=choice(1)", "several values"),
    ],
)
def test_malformed(tmp_path: Path, text: str, found: str) -> None:
    """A malformed override is named, with the form that is expected."""
    line = f"a.yaml: found override {text!r} with {found}, allowed: {FORM}"
    assert problems_in(tmp_path, DATASET, [text]) == [line]


def test_does_not_fit(tmp_path: Path) -> None:
    """An index out of range and a key below a number are problems of that key."""
    where = "data.train.dataset.dataset_configs"
    assert problems_in(tmp_path, DATASET, [f"{where}[5].ROOT=x"]) == [
        f"a.yaml: {where}[5].ROOT: found override '{where}[5].ROOT=x' with the index 5,"
        " allowed: an index from 0 to 1, which appends"
    ]
    assert problems_in(tmp_path, DATASET, ["img_size.x=1"]) == [
        "a.yaml: img_size.x: found override 'img_size.x=1' below img_size, which is 224,"
        " allowed: a key below a mapping, or img_size itself"
    ]


def test_overrides_are_checked(tmp_path: Path) -> None:
    """A value from an override is held to the same rules, and a misspelt key is found."""
    assert problems_in(tmp_path, DATASET, ["img_size=ten", "overfit.budget.max_step=3"]) == [
        "a.yaml: img_size: found 'ten', allowed: a whole number from 1 to 8192",
        "a.yaml: overfit.budget.max_step: found an unknown key (did you mean max_steps?), allowed:"
        " max_steps | max_seconds | hold_steps",
    ]
