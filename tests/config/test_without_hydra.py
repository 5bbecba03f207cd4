"""Without Hydra the same configs give the same trees; what only Hydra can do is refused, with what installs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_overfit.settings.problems import Unusable
from pytest_overfit.trainer.compose import compose_tree
from pytest_overfit.trainer.with_hydra import hydra_available

from .conftest import block_hydra
from .helpers import EXAMPLES, SOURCE_ENV, problems_in, write

FILES = {
    "base": "z: 3\ny: {b: 2}\nlr: 1e-4\n",
    "m/small": "x: 1\nsize: ${x}\n",
    "m/large": "x: 2\nw: [1, 2]\n",
    "m/global": "# @package _global_\nx: 5\ny: {c: 1}\n",
    "m/named": "# a comment\n# @package k.l\nx: 6\n",
    "m/group": "# @package _group_\nx: 7\n",
    "g/inner/a": "i: 1\n",
    "g/inner/b": "i: 2\n",
    "g/one": "defaults: [{inner: a}, _self_]\no: ${.inner.i}\n",
    "g/two": "defaults: [_self_, {/m@_global_.mm: small}, {inner@p: b}, one]\no: 1\n",
    "g/three": "defaults: [two, {override inner: b}]\n",
    "g/four": "# @package _global_\ndefaults: [{/m@q: large}, {override /g/inner: b}]\nq: {x: 9}\n",
    "g/cycle": "defaults: [{/g@q: cycle}]\n",
    "more/extra": "extra: 1\nx: ${z}\n",
}
ENTRIES = [
    "base", "base.yaml", "_self_", "m/small", "/m/large", "m/global", "m/small@k", "m/small@_global_", "nope", "g/four",
    "{m: small}", "{m: large}", "{m: small.yaml}", "{m: global}", "{m: named}", "{m: group}", "{m: null}", "{m: '???'}",
    "{m: [small, large]}", "{m: []}", "{m@k: small}", "{m@k.l: large}", "{m@_here_: small}", "{m@_group_.k: small}",
    "{optional m: nope}", "{m: nope}", "{override m: large}", "{override m@k: large}", "{override g/inner: b}",
    "{g: one}", "{g: two}", "{g: three}", "{g@h: one}", "{g/inner: a}", "{g: cycle}", "{/g: one}", "extra",
]  # fmt: skip
OVERRIDES = [
    "m=large", "m=small", "m=[large,small]", "m=nope", "+m=small", "++m=small", "~m", "~m=small", "m@k=large",
    "+m@new.place=large", "+g@new=two", "g=two", "g/inner=b", "m.x=7", "~m.x", "y.b=4", "+hydra.searchpath=[more]",
    "hydra.searchpath=[more]",
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
    """What Hydra composes, and what we compose without it."""
    if not hydra_available():
        pytest.skip("Hydra is not installed")
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


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_line_is_equal(folder: Path, entry: str) -> None:
    """Each kind of line, before and after the file itself, gives the same tree, or the same problem."""
    for lines in (entry, f"_self_, {entry}", f"{entry}, _self_", f"{{m: small}}, {{m@k: small}}, {entry}"):
        path = write(folder, f"defaults: [{lines}]\nx: 0\nz: 1\n")
        with_hydra, without = both(path)
        assert without == with_hydra, lines


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(ENTRIES), max_size=4, unique=True),
    st.lists(st.sampled_from(OVERRIDES), max_size=2),
    st.sampled_from(["", "hydra: {searchpath: [more]}\n", "hydra: {searchpath: ['file://more', nowhere]}\n"]),
)
def test_any_list_is_equal(folder: Path, entries: list[str], overrides: list[str], search: str) -> None:
    """Any list with any overrides gives the same tree; where it is refused, both refuse it."""
    path = write(folder, f"{search}defaults: [{', '.join(entries)}]\nx: 0\nz: 1\n")
    with_hydra, without = both(path, overrides)
    assert without == with_hydra or not (without.startswith("[") or with_hydra.startswith("["))


@pytest.mark.parametrize("setting", ["hydra.searchpath=[more]", "+hydra.searchpath=[more]"])
@pytest.mark.parametrize("entry", ["extra", "base"])
def test_a_search_path_of_an_override_is_equal(folder: Path, setting: str, entry: str) -> None:
    """One that is set is searched; one that is added with a plus is not, here as in Hydra."""
    with_hydra, without = both(write(folder, f"defaults: [{entry}]\nx: 0\n"), [setting])
    assert without == with_hydra
    assert with_hydra.startswith("[") == (entry == "base" or not setting.startswith("+"))


def test_both_ways_are_taken(folder: Path) -> None:
    """The comparisons above compare two composers: Hydra alone knows its launchers."""
    path = write(folder, "defaults: [_self_, {override hydra/launcher: basic}]\nx: 1\n")
    with_hydra, without = both(path)
    assert (with_hydra, "only Hydra" in without) == ('[{"x": 1}, []]', True)


@pytest.mark.parametrize(
    ("text", "overrides", "line"),
    [
        ("defaults: [{override hydra/launcher: basic}]\n", [],
         "defaults: found hydra/launcher: basic in a defaults list, which only Hydra can compose"),
        ("defaults: [{m: '${size}'}]\nsize: small\n", [],
         "defaults: found m: ${size} in a defaults list, which only Hydra can compose"),
        ("defaults: [base]\nhydra: {searchpath: ['pkg://conf']}\n", [],
         "defaults: found the search path 'pkg://conf', which only Hydra can compose"),
        ("x: 1\n", ["hydra.job.name=x"], "defaults: found override 'hydra.job.name=x', which only Hydra can compose"),
        ("x: 1\n", ["hydra/launcher=basic"],
         "defaults: found override 'hydra/launcher=basic', which only Hydra can compose"),
    ],
)  # fmt: skip
def test_only_hydra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, overrides: list[str], line: str
) -> None:
    """What only Hydra can compose is one problem: what was seen, and what installs Hydra."""
    block_hydra(monkeypatch)
    install = '(next: pip install "pytest-overfit[hydra]")'
    assert problems_in(tmp_path, text, overrides) == [f"a.yaml: {line} {install}"]


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


def test_plain_file_imports_no_hydra(tmp_path: Path) -> None:
    """A plain file and plain overrides do not import Hydra where it is installed: it takes a second."""
    path = write(tmp_path, "img_size: 224\n")
    code = f"""
import sys
from pytest_overfit.trainer.loading import load_config
print(load_config({str(path)!r}, ["seed_value=7", "model={{a:1}}"]).seed, "hydra" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "7 False\n"


def test_resolvers_of_hydra(tmp_path: Path) -> None:
    """Values that only Hydra can resolve are named with their keys; a comment about them is no use of them."""
    path = write(tmp_path, "# ${now:%H}\nexp_name: run_${now:%Y}\nmodel: {name: '${hydra:job.name}'}\n")
    printed = in_a_process_without_hydra(f"try: load_config({str(path)!r})\nexcept Exception as error: print(error)")
    install = 'which only Hydra can resolve (next: pip install "pytest-overfit[hydra]")'
    assert printed.replace(f"{tmp_path}/", "") == (
        "2 problems in the config\n"
        f"  a.yaml: exp_name: found run_${{now:%Y}}, {install}\n"
        f"  a.yaml: model.name: found ${{hydra:job.name}}, {install}\n[]\n"
    )


ENDLESS = ["a.yaml: defaults: found includes without end, allowed: at most 1000 files, 64 deep"]


def test_includes_that_multiply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few files that include each other twice, and so name billions, are refused."""
    block_hydra(monkeypatch)
    for number in range(20):
        write(tmp_path, f"defaults: [n{number + 1}@a, n{number + 1}@b]\n", f"n{number}.yaml")
    write(tmp_path, "x: 1\n", "n20.yaml")
    assert problems_in(tmp_path, "defaults: [n0]\n") == ENDLESS


def test_long_chain_of_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of hundreds of includes is a problem, not a crash."""
    block_hydra(monkeypatch)
    for number in range(600):
        write(tmp_path, f"defaults: [n{number + 1}]\n", f"n{number}.yaml")
    assert problems_in(tmp_path, "defaults: [n0]\n") == ENDLESS
