"""The house keeps its order: few rooms, one direction of flow, no pytest in the core, no torch for plain numbers.

ARCHITECTURE.md shows the same rooms to people; the last test here holds the two together.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pytest_overfit"
FLOW = (
    *("errors", "untrusted", "settings", "run", "judge", "twins", "integrations", "trainer", "diagnose"),
    *("text", "two_view", "result", "report", "api", "plugin", "commands", "cli", "__init__"),
)
MOST_ROOMS, MOST_FLOORS, MOST_ARROWS = 18, 11, 95
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_THE_PLUGIN = 350, 60, 200
WITHOUT_TORCH = (
    "trainer.loading",
    "settings.ladder",
    "two_view.pair.create",
    "two_view.pair.synthetic",
    "two_view.pair.check",
    "two_view.pictures.pair_sheet",
    "two_view.pictures.frames",
    "judge.verdict",
    "diagnose.rank",
    "diagnose.defects",
    "text.failure",
    "text.numbers",
    "text.progress",
    "text.table",
    "report.board.layout",
    "report.ci.annotations",
    "report.ci.junit",
    "report.ci.summary",
    "report.folders",
    "report.markdown.experiment",
    "report.page.write",
    "report.record.codec",
    "report.record.folder",
    "result",
)

Graph = Mapping[str, Mapping[str, int]]  # file -> files that it imports -> line


def import_graph(sources: Mapping[str, str]) -> Graph:
    """Who imports whom, wherever the import stands: at the top, for types alone, or inside of a function.

    Args:
        sources: dotted name of a module -> its text.
    """
    return {
        module: {name: line for name, line in _imports(text, sources) if name != module}
        for module, text in sources.items()
    }


def _imports(text: str, modules: Iterable[str]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [each if each in modules else node.module for each in inside]
        else:
            continue
        yield from ((name, node.lineno) for name in named if name in modules)


def room_of(module: str) -> str:
    """The room of a file: the second part of its dotted name."""
    return module.split(".")[1] if "." in module else "__init__"


def arrows_of(graph: Graph) -> dict[str, set[str]]:
    """Room -> the other rooms that it imports."""
    arrows: dict[str, set[str]] = {room_of(module): set() for module in graph}
    for module, imported in graph.items():
        arrows[room_of(module)] |= {room_of(other) for other in imported} - {room_of(module)}
    return arrows


def floors_of(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> its floor: 1 imports no other room, every room stands one above the highest that it imports."""
    floors: dict[str, int] = {}
    for room in TopologicalSorter(arrows).static_order():
        floors[room] = 1 + max((floors[other] for other in arrows[room]), default=0)
    return floors


def circle_of(graph: Graph) -> list[str]:
    """Files that import each other in a circle; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def backward(graph: Graph, flow: tuple[str, ...]) -> list[str]:
    """Imports of a room that comes later in the flow."""
    return [
        f"{module}:{line} imports {other}"
        for module, imported in graph.items()
        for other, line in imported.items()
        if flow.index(room_of(module)) < flow.index(room_of(other))
    ]


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def package() -> Graph:
    return import_graph({module_name(path): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")})


def test_the_house_is_small_enough_to_live_in() -> None:
    """Rooms, floors and arrows between rooms."""
    arrows = arrows_of(package())
    found = len(arrows), max(floors_of(arrows).values()), sum(map(len, arrows.values()))
    assert all(is_ <= most for is_, most in zip(found, (MOST_ROOMS, MOST_FLOORS, MOST_ARROWS), strict=True)), found


def test_rooms_import_only_what_comes_before_them() -> None:
    """The order of FLOW, never backwards."""
    assert set(arrows_of(package())) == set(FLOW)
    assert backward(package(), FLOW) == []


def names_of_configs(source: str) -> list[str]:
    """The names of a text that are those of a trainer's config."""
    named = ("OverfitConfig", "TrainerConfig", "SplitConfig", "CheckpointConfig")
    return [node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name) and node.id in named]


def test_the_runner_knows_no_config() -> None:
    """What it needs of one reaches it in the subject and the settings."""
    files = [*(PACKAGE / "run").rglob("*.py")]
    assert {path.name: bad for path in files if (bad := names_of_configs(path.read_text(encoding="utf-8")))} == {}
    assert names_of_configs("def run(config: OverfitConfig): ...") == ["OverfitConfig"]


def test_no_files_import_each_other_in_a_circle() -> None:
    """Type-checking imports and those inside of functions included."""
    assert circle_of(package()) == []


SMALL = {
    "p": "",
    "p.low.a": "",
    "p.low.b": "from p.low import a",
    "p.mid": "def f():\n    from p.low.b import g",
    "p.top": "from __future__ import annotations\nimport p.mid\nfrom p.low.a import x",
}


def test_the_measures_of_the_house_count() -> None:
    """Rooms, arrows and floors of a small house are what one counts by hand."""
    arrows = arrows_of(import_graph(SMALL))
    assert arrows == {"__init__": set(), "low": set(), "mid": {"low"}, "top": {"mid", "low"}}
    assert floors_of(arrows) == {"__init__": 1, "low": 1, "mid": 2, "top": 3}


@pytest.mark.parametrize(
    "source", ["import p.top", "def f():\n    from p.top import h", "if TYPE_CHECKING:\n    from p.top import H"]
)
def test_an_import_against_the_flow_and_a_circle_would_be_seen(source: str) -> None:
    """Wherever in the file it stands."""
    graph = import_graph({**SMALL, "p.low.a": source})
    (found,) = backward(graph, ("__init__", "low", "mid", "top"))
    assert found.startswith("p.low.a:")
    assert found.endswith("imports p.top")
    assert set(circle_of(graph)) >= {"p.low.a", "p.top"}
    assert circle_of(import_graph(SMALL)) == []


def long_functions(text: str, most: int) -> list[str]:
    """Functions of more lines than that, by name."""
    functions = (
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    return [node.name for node in functions if (node.end_lineno or node.lineno) - node.lineno + 1 > most]


def test_files_are_read_in_one_sitting_and_functions_on_one_screen() -> None:
    """No file and no function beyond the limits; a public docstring with its example counts."""
    texts = {module_name(path): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert [name for name, text in texts.items() if len(text.splitlines()) > MOST_LINES_OF_A_FILE] == []
    assert {
        name: long for name, text in texts.items() if (long := long_functions(text, MOST_LINES_OF_A_FUNCTION))
    } == {}
    assert len(texts["pytest_overfit.plugin"].splitlines()) <= MOST_LINES_OF_THE_PLUGIN


def test_a_long_function_would_be_seen() -> None:
    """The test above can fail."""
    assert long_functions("def f():\n    a = 1\n    return a\n\ndef g():\n    pass\n", 2) == ["f"]


def test_a_file_name_has_one_meaning() -> None:
    """No two files of the package are called the same."""
    names = [path.stem for path in PACKAGE.rglob("*.py") if path.stem != "__init__"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_only_the_plugin_imports_pytest() -> None:
    """The core is usable, and testable, without pytest."""
    users = {
        room_of(module_name(path))
        for path in PACKAGE.rglob("*.py")
        if any(
            isinstance(node, (ast.Import, ast.ImportFrom))
            and any(name.split(".")[0] in ("pytest", "_pytest", "xdist") for name in _modules(node))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    }
    assert users == {"plugin"}


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]


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


def test_the_map_for_people_shows_this_house() -> None:
    """ARCHITECTURE.md: its flow is FLOW, and every file and folder that it names is there."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    flow = re.search(r"^errors ->[^`]*", text, re.MULTILINE)
    assert flow is not None
    assert tuple(re.split(r"\s*->\s*", flow[0].strip())) == FLOW[:-1]
    named = re.findall(r"`((?:pytest_overfit|tests|benchmarks|docs|example_configs)/[\w/.-]+)`", text)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
