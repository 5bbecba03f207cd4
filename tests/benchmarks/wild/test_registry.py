"""The registry gives what is installed and says what is not; the plain loop tells what is not healthy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.wild import libraries, plain
from benchmarks.wild.registry import collect, library_names

SMALL = """
import torch
from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal, squared_error

class Spare(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x)

def programs():
    for name, limit in {programs}:
        yield Program(
            name, "{library}", Spare, lambda: (normal(2, 3), normal(2, 2, seed=1)), squared_error, limit, lr=0.1,
            given={given},
        )
"""


class Folder:
    """A folder of libraries in place of the one that is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, library: str, *programs: tuple[str, float], given: str = "{}") -> None:
        """A library of torch alone, with these names and limits."""
        text = SMALL.format(programs=list(programs), library=library, given=given)
        (self.path / f"{library}.py").write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """Libraries that the test writes; nothing of them stays imported."""
    monkeypatch.setattr(libraries, "__path__", [str(tmp_path)])
    before = set(sys.modules)
    yield Folder(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith(f"{libraries.__name__}."):
            del sys.modules[name]
            vars(libraries).pop(name.rpartition(".")[2], None)


def test_missing_is_said(folder: Folder) -> None:
    """One library is there; the other asks for a package that nobody has."""
    folder.write("present", ("present/Net", 0.01))
    (folder.path / "absent.py").write_text("import no_such_package_of_networks\n", encoding="utf-8")
    collected = collect()
    assert [program.name for program in collected.programs] == ["present/Net"]
    assert list(collected.missing) == ["absent"]
    assert "no_such_package_of_networks" in collected.missing["absent"]


def test_others_are_not_imported(folder: Folder) -> None:
    """What was not asked for is neither imported nor missing."""
    folder.write("present", ("present/Net", 0.01), ("present/Other", 0.01))
    (folder.path / "broken.py").write_text("raise RuntimeError\n", encoding="utf-8")
    collected = collect(["present/N"])
    assert [program.name for program in collected.programs] == ["present/Net"]
    assert not collected.missing


def test_names_are_unique(folder: Folder) -> None:
    """A second program of one name is refused by that name."""
    folder.write("present", ("present/Net", 0.01), ("present/Net", 0.02))
    with pytest.raises(ValueError, match="two programs of one name: present/Net"):
        collect()


def test_names_are_of_their_library(folder: Folder) -> None:
    """A program that was copied and not renamed is refused."""
    folder.write("present", ("other/Net", 0.01))
    with pytest.raises(ValueError, match="other/Net of present stands in present"):
        collect()


def test_installed_ones_are_there() -> None:
    """Of the real ones those run whose library this project is tested with; names and limits are as promised."""
    pytest.importorskip("torchmetrics")
    collected = collect(["torchmetrics"])
    assert len(collected.programs) >= 3
    assert not collected.missing
    assert len(library_names()) >= 30
    for program in collected.programs:
        assert program.batch()[0].equal(program.batch()[0])
        assert set(program.given) <= {"unused", "frozen", "stochastic", "unbounded"}


def test_plain_loop_tells_what_is_not_healthy(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit that is reached, one that is not, and parameters that nothing reads."""
    folder.write("present", ("present/Net", 0.01), ("present/Impossible", -1.0))
    assert plain.main(["present", "--seeds", "2"]) == 1
    reached, impossible, last = capsys.readouterr().out.splitlines()
    assert "2 IDLE: spare.weight spare.bias" in reached
    assert "NOT REACHED" not in reached
    assert impossible.endswith("NOT REACHED")
    assert last == "2 programs, 1 that do not reach their limit"


def test_plain_loop_knows_what_was_declared(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """A spare part that the program declares is no news."""
    folder.write("present", ("present/Net", 0.01), given='{"unused": ["spare.*"]}')
    assert plain.main(["present", "--seeds", "1"]) == 0
    assert "IDLE" not in capsys.readouterr().out


def test_plain_loop_tells_what_is_declared_and_learns(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """A glob that matches more than what is idle is no honest declaration."""
    folder.write("present", ("present/Net", 0.01), given='{"unused": ["*.bias"]}')
    assert plain.main(["present", "--seeds", "1"]) == 1
    assert "1 LEARNS: used.bias" in capsys.readouterr().out
