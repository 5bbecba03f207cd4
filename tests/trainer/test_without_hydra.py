"""The plain subset of composition gives Hydra's trees; what is beyond it is refused, with what installs Hydra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_overfit.settings.problems import Unusable, shown
from pytest_overfit.trainer import compose
from pytest_overfit.trainer.compose import compose_tree, hydra_available
from pytest_overfit.trainer.config_file import needs_hydra

from .conftest import block_hydra
from .helpers import EXAMPLES, SOURCE_ENV, problems_in, write

FILES = {
    "base": "z: 3\ny: {b: 2}\nlr: 1e-4\n",
    "m/small": "x: 1\nsize: ${x}\n",
    "m/large": "x: 2\nw: [1, 2]\n",
    "g/inner/a": "i: 1\nz: {a: 1}\n",
    "g/inner/b": "i: 2\nz: '???'\n",
    "g/one": "defaults: [{inner: a}, _self_]\no: ${.inner.i}\n",
    "g/two": "defaults: [_self_, /m/small, {/m: large}, {inner: b}]\no: 1\nm: ${y}\n",
    "y/linked": "to: ${z}\n",
    "y/over": "to: {b: 3}\nb: null\n",
}
PLAIN = [
    "base", "base.yaml", "_self_", "m/small", "/m/large", "{m: small}", "{m: large}", "{m: small.yaml}", "{g: one}",
    "{g: two}", "g/two", "{g/inner: a}", "{/g: one}", "y/linked", "y/over",
]  # fmt: skip
OVERRIDES = ["m=large", "m=small", "g/inner=b", "m.x=7", "y.b=4", "z={c: 1}"]
HYDRAS = [
    "m/small@k", "{m: null}", "{m: '???'}", "{m: [small, large]}", "{m: []}", "{m@k: small}", "{optional m: small}",
    "{override m: large}", "{m: '${x}'}", "{override hydra/launcher: basic}", "{m: 3}", "{}",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of configs that include each other in every way, which is the working directory too."""
    folder = tmp_path_factory.mktemp("configs")
    for name, text in FILES.items():
        write(folder, text, f"{name}.yaml")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def composed(path: Path, overrides: Sequence[str] = ()) -> str:
    """The tree as text, in the order of its keys; or its problems."""
    try:
        tree = compose_tree(path, overrides)
        return json.dumps([tree.values, [problem.line("") for problem in tree.problems]], default=repr)
    except Unusable as error:
        return "; ".join(problem.line("") for problem in error.problems)


def both(path: Path, overrides: Sequence[str] = ()) -> tuple[str, str]:
    """What Hydra composes, and what we compose."""
    if not hydra_available():
        pytest.skip("Hydra is not installed")

    def beyond(*_: object) -> None:
        raise needs_hydra("everything")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "composed", beyond)
        first = composed(path, overrides)
    with pytest.MonkeyPatch.context() as patch:
        block_hydra(patch)
        return first, composed(path, overrides)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_equal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example gives the same tree with Hydra and without."""
    for name, value in SOURCE_ENV.items():
        monkeypatch.setenv(name, value)
    with_hydra, without = both(path, ["optim.optimizer.lr=1e-5"])
    assert without == with_hydra
    assert '"lr": 1e-05' in without


@pytest.mark.parametrize("entry", PLAIN)
def test_each_line_is_equal(folder: Path, entry: str) -> None:
    """Each kind of line of the plain subset, before and after the file itself, gives Hydra's tree."""
    for lines in (entry, f"_self_, {entry}", f"{entry}, _self_", f"/y/linked, {entry}"):
        path = write(folder, f"defaults: [{lines}]\nx: 0\nz: 1\n")
        by_hydra, ours = both(path)
        assert ours == by_hydra, lines


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(PLAIN), max_size=4, unique=True),
    st.lists(st.sampled_from(OVERRIDES), max_size=2),
)
def test_any_list_is_equal(folder: Path, entries: list[str], overrides: list[str]) -> None:
    """Any list with any overrides gives Hydra's tree; where it is refused, both refuse it."""
    path = write(folder, f"defaults: [{', '.join(entries)}]\nx: 0\nz: 1\n")
    by_hydra, ours = both(path, overrides)
    assert ours == by_hydra or not (ours.startswith("[") or by_hydra.startswith("["))


def test_both_ways_are_taken(folder: Path) -> None:
    """The comparisons above compare two composers: Hydra alone knows its launchers."""
    path = write(folder, "defaults: [_self_, {override hydra/launcher: basic}]\nx: 1\n")
    by_hydra, ours = both(path)
    assert (by_hydra, "only Hydra" in ours) == ('[{"x": 1}, []]', True)


@pytest.mark.parametrize(
    ("text", "overrides", "seen"),
    [
        *((f"defaults: [{entry}]\n", [], f"{shown(yaml.safe_load(entry))} in a defaults list") for entry in HYDRAS),
        ("defaults: [m/packaged]\n", [], "the header of m/packaged"),
        ("defaults: [m/searching]\n", [], "the key hydra of m/searching"),
        ("hydra: {searchpath: [x]}\n", [], "the key hydra"),
        *(("x: 1\n", [text], f"override {text!r}")
          for text in ("hydra.job.name=x", "hydra/launcher=basic", "~x", "+y=1", "++x=1", "m@k=small")),
    ],
)  # fmt: skip
def test_only_hydra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, overrides: list[str], seen: str
) -> None:
    """What is beyond the plain subset is one problem: what was seen, and what installs Hydra."""
    block_hydra(monkeypatch)
    write(tmp_path, "# of the model\n# @package _global_\nx: 1\n", "m/packaged.yaml")
    write(tmp_path, "hydra: {searchpath: [b]}\n", "m/searching.yaml")
    install = '(next: pip install "pytest-overfit[hydra]")'
    assert problems_in(tmp_path, text, overrides) == [
        f"a.yaml: defaults: found {seen}, which only Hydra can compose {install}"
    ]


@pytest.mark.parametrize(
    ("defaults", "overrides", "found"),
    [
        ("[{m: smal}]", [], "In 'a.yaml': Could not load 'm/smal'. (did you mean small?), allowed: configs next to the"
         " file, or in a folder of hydra.searchpath"),
        ("[{m: small}, {m: large}]", [], "a composition that fails: Multiple values for m. To override a value use"
         " 'override m: small'"),
        ("[_self_, _self_]", [], "a composition that fails: Duplicate _self_ defined in a.yaml"),
        ("[]", ["m=small"], "a composition that fails: Could not override 'm=small'. No match in the defaults list"),
        ("3", [], "a composition that fails: Invalid defaults list in 'a.yaml', defaults must be a list (got int)"),
    ],
)  # fmt: skip
def test_lists_that_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defaults: str, overrides: list[str], found: str
) -> None:
    """A list of the plain subset that cannot be composed says why."""
    block_hydra(monkeypatch)
    for name in ("small", "large"):
        write(tmp_path, "x: 1\n", f"m/{name}.yaml")
    text = f"defaults: {defaults}\nexp_name: x\n"
    assert problems_in(tmp_path, text, overrides) == [f"a.yaml: defaults: found {found}"]


def in_a_process_without_hydra(statement: str) -> str:
    """What a fresh process prints in which Hydra cannot be imported, and then the Hydra modules that it has."""
    code = f"""
import sys
sys.modules["hydra"] = None
from pytest_overfit.trainer.loading import load_config
{statement}
print([name for name in sys.modules if name.startswith("hydra.")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **SOURCE_ENV}
    )
    return done.stdout


def test_examples_import_no_hydra() -> None:
    """Where Hydra is not installed the examples load, by none of its modules."""
    paths = [str(path) for path in sorted(EXAMPLES.glob("*.yaml"))]
    names = in_a_process_without_hydra(f"print(*[load_config(path).exp_name for path in {paths}])")
    assert names == " ".join(Path(path).stem for path in paths) + "\n[]\n"


def test_the_plain_subset_imports_no_hydra(tmp_path: Path) -> None:
    """Nor OmegaConf, where they are installed: it takes a second."""
    write(tmp_path, "img_size: 224\n", "base.yaml")
    path = write(tmp_path, "defaults: [base]\nexp_name: x_${img_size}_${oc.env:HOME}\n")
    code = f"""
import sys
from pytest_overfit.trainer.loading import load_config
print(load_config({str(path)!r}, ["seed_value=7", "model={{a:1}}"]).seed, {{"hydra", "omegaconf"}} & {{*sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "7 set()\n"


def test_resolvers_of_hydra(tmp_path: Path) -> None:
    """Values that only Hydra can resolve are named with their keys; a comment about them is no use of them."""
    path = write(tmp_path, "# ${now:%H}\nexp_name: run_${now:%Y}\nmodel: {name: '${hydra:job.name}'}\n")
    printed = in_a_process_without_hydra(f"try: load_config({str(path)!r})\nexcept Exception as error: print(error)")
    install = 'which only Hydra can resolve (next: pip install "pytest-overfit[hydra]")'
    assert printed.replace(f"{tmp_path}/", "") == (
        f"a.yaml: exp_name: found run_${{now:%Y}}, {install}\n"
        f"  a.yaml: model.name: found ${{hydra:job.name}}, {install}\n2 problems in the config\n[]\n"
    )


ENDLESS = ["a.yaml: defaults: found includes without end, allowed: at most 1000 files, 64 deep"]


def test_includes_that_multiply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few files that include each other twice, and so name billions, are refused."""
    block_hydra(monkeypatch)
    for number in range(20):
        write(tmp_path, f"defaults: [n{number + 1}, n{number + 1}]\n", f"n{number}.yaml")
    write(tmp_path, "x: 1\n", "n20.yaml")
    assert problems_in(tmp_path, "defaults: [n0]\n") == ENDLESS


def test_long_chain_of_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of hundreds of includes is a problem, not a crash."""
    block_hydra(monkeypatch)
    for number in range(600):
        write(tmp_path, f"defaults: [n{number + 1}]\n", f"n{number}.yaml")
    assert problems_in(tmp_path, "defaults: [n0]\n") == ENDLESS
