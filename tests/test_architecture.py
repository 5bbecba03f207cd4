"""The house keeps its order: one direction of flow, no pytest in the core, no torch where plain numbers are enough."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pytest_overfit"
RANK = {
    "errors": 0,
    "untrusted": 1,
    "settings": 2,
    "trainer": 3,
    "two_view": 3,
    "run": 3,
    "integrations": 4,
    "judge": 4,
    "diagnose": 5,
    "text": 6,
    "result": 7,
    "api": 9,
    "report": 8,
    "plugin": 10,
    "cli": 10,
}
WITHOUT_TORCH = (
    "trainer.loading",
    "settings.ladder",
    "two_view.pair.create",
    "two_view.pair.synthetic",
    "two_view.pair.check",
    "judge.criteria",
    "diagnose.rank",
    "diagnose.defects",
    "diagnose.own_rules",
    "report.record.codec",
    "report.record.folder",
    "report.board.layout",
    "text.failure",
    "two_view.pictures.pair_sheet",
    "two_view.pictures.frames",
    "report.page.write",
    "text.numbers",
    "report.folders",
    "text.progress",
    "text.table",
    "report.ci.annotations",
    "report.markdown.experiment",
    "report.ci.junit",
    "report.ci.summary",
    "result",
)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of this package, without its own name, that a file imports (type-checking imports included)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from (name.removeprefix("pytest_overfit.") for name in names if name.startswith("pytest_overfit."))


def backward_imports(room: str, names: list[str]) -> list[str]:
    """The imports of a room that do not go down the flow."""
    allowed = {other for other, rank in RANK.items() if rank <= RANK[room]}
    return [name for name in names if name.split(".")[0] not in allowed]


@pytest.mark.parametrize("room", RANK)
def test_rooms_import_only_what_comes_before_them(room: str) -> None:
    """The order of RANK, never backwards."""
    files = [*(PACKAGE / room).rglob("*.py")] or [PACKAGE / f"{room}.py"]
    wrong = {path.name: bad for path in files if (bad := backward_imports(room, [*imports(path)]))}
    assert files
    assert wrong == {}


def test_the_flow_check_can_fail() -> None:
    """A judge that reads a report would be found."""
    assert backward_imports("judge", ["text.table", "run.record", "errors"]) == ["text.table"]


def test_only_the_glue_imports_pytest() -> None:
    """The core is usable, and testable, without pytest."""
    users = {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(
            isinstance(node, (ast.Import, ast.ImportFrom))
            and any(name.split(".")[0] in ("pytest", "_pytest", "xdist") for name in _modules(node))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    }
    assert {name.split("/")[0] for name in users} == {"plugin"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_plain_rooms_do_not_import_torch(module: str) -> None:
    """Configs, pairs, verdicts and text work without torch (and so start fast)."""
    assert not loads(f"pytest_overfit.{module}", "torch")


def test_the_torch_check_can_fail() -> None:
    """The loop does import torch, and the probe sees it."""
    assert loads("pytest_overfit.run.loop", "torch")


def loads(module: str, wanted: str) -> bool:
    code = f"import sys, importlib; importlib.import_module({module!r}); print({wanted!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]


BLANKET = {"Exception", "BaseException"}
CATCHES_ALL = {"errors/asking.py"}  # the one place: see its docstring


def blanket_handlers(source: str) -> list[int]:
    """The lines of handlers that take whatever comes and do not raise: an error of ours instead, or the same again."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            wide = any(kind is None or (isinstance(kind, ast.Name) and kind.id in BLANKET) for kind in kinds)
            if wide and not isinstance(node.body[-1], ast.Raise):
                found.append(node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            found += [node.lineno] if BLANKET & {ast.unparse(argument) for argument in node.args} else []
    return found


def test_one_place_catches_whatever_comes() -> None:
    """A handler of everything elsewhere would turn a mistake of ours into an answer."""
    files = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in CATCHES_ALL]
    found = {path.relative_to(PACKAGE).as_posix(): blanket_handlers(path.read_text(encoding="utf-8")) for path in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("try:\n    f()\nexcept Exception:\n    pass", [3]),
        ("try:\n    f()\nexcept:\n    x = 1", [3]),
        ("try:\n    f()\nexcept (ValueError, BaseException) as e:\n    print(e)", [3]),
        ("with contextlib.suppress(Exception, Detached):\n    f()", [1]),
        ("with suppress(OSError):\n    f()", []),
        ("try:\n    f()\nexcept Exception as e:\n    raise Wrong(e) from e", []),
        ("try:\n    f()\nexcept ValueError:\n    pass", []),
    ],
)
def test_a_blanket_handler_would_be_seen(source: str, lines: list[int]) -> None:
    """The test above can fail."""
    assert blanket_handlers(source) == lines
