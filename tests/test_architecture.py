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
    "config": 0,
    "pair": 1,
    "data": 2,
    "reference": 2,
    "run": 3,
    "integrations": 4,
    "judge": 4,
    "diagnose": 5,
    "report": 6,
    "document": 7,
    "render": 8,
}
SHARED = {"asking", "errors", "files", "foreign", "suggest"}
RESULT = 7  # from this rank on rooms know the verdict of a run, which itself knows the texts of report
GLUE = {"plugin", "collect", "checks", "fixtures", "calls", "ledger", "progress", "properties", "strict", "terminal"}
GLUE |= {"watchers", "distribute", "ranks", "places", "verdicts"}
WITHOUT_TORCH = (
    "config.loading",
    "config.settings",
    "pair.create",
    "pair.render",
    "pair.check",
    "judge.criteria",
    "diagnose.rank",
    "diagnose.defects",
    "diagnose.own_rules",
    "document.codec",
    "document.folder",
    "report.board",
    "report.causes",
    "report.pair_sheet",
    "report.pictures",
    "render.page.write",
    "report.debug",
    "report.folders",
    "report.progress",
    "report.text",
    "render.annotations",
    "render.experiment",
    "render.properties",
    "render.summary",
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
    allowed = {other for other, rank in RANK.items() if rank <= RANK[room]} | SHARED
    allowed |= {"result"} if RANK[room] >= RESULT else set()
    return [name for name in names if name.split(".")[0] not in allowed]


@pytest.mark.parametrize("room", RANK)
def test_rooms_import_only_what_comes_before_them(room: str) -> None:
    """The order of RANK, never backwards."""
    files = [*(PACKAGE / room).rglob("*.py")]
    wrong = {path.name: bad for path in files if (bad := backward_imports(room, [*imports(path)]))}
    assert files
    assert wrong == {}


def test_the_flow_check_can_fail() -> None:
    """A judge that reads a report would be found."""
    assert backward_imports("judge", ["report.text", "run.record", "errors"]) == ["report.text"]


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
    assert users == GLUE


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
