"""The config file itself: found, bounded, decoded and parsed, with the line and column of what is wrong in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_overfit.errors import OverfitError
from pytest_overfit.settings.problems import WITHIN_BITS, Problem, Unusable, did_you_mean
from pytest_overfit.untrusted.files import read_regular

if TYPE_CHECKING:
    from omegaconf import DictConfig

MAX_BYTES = 1_000_000
MAX_NODES = 10_000  # 3 seconds; the largest example has 232
_BASE_60 = re.compile(r"(?:\d[\d_]?:){100}")
MAX_INTERPOLATIONS = 10_000  # of one file; OmegaConf reads 6,000 a second where they are nested


def read_text(path: Path) -> str:
    """The text of a config file.

    Raises:
        Unusable: it is missing, not a file, too large or not UTF-8.
    """
    try:
        if not path.exists():
            siblings = [item.name for item in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
            raise Unusable(Problem("", "no such file", "a YAML file", did_you_mean(path.name, siblings)))
        content = read_regular(path, most=MAX_BYTES)
        return content.decode("utf-8-sig")
    except OverfitError as error:
        raise Unusable(Problem("", error.found, f"a YAML file of at most {MAX_BYTES} bytes")) from error
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise Unusable(Problem("", f"byte 0x{byte:02x} at offset {error.start}", "UTF-8 text")) from error
    except (OSError, ValueError) as error:
        raise Unusable(Problem("", f"a file that cannot be read: {error}", "a readable YAML file")) from error


def read_include(path: Path) -> tuple[DictConfig, str | None]:
    """An included file, which may be empty, and the package that its ``# @package`` header names.

    ``_group_`` names the place where the file goes anyway, as before Hydra 1.2.

    Raises:
        Unusable: whatever is wrong with the file, as a problem of ``defaults``.
    """
    try:
        text = read_text(path)
        package = _package(text)
        return parse(text, empty=True), None if package == "_group_" else package
    except Unusable as error:
        raise Unusable(
            *(
                Problem("defaults", f"in {path}{item.key} {item.found}", item.allowed, item.hint)
                for item in error.problems
            )
        ) from error


def _package(text: str) -> str | None:
    """The ``# @package NAME`` line among the comments with an ``@`` at the top of a file."""
    for line in filter(None, map(str.strip, text[:512].splitlines())):
        if not re.match(r"#\s*@", line):
            break
        words = line.lstrip("#").split()
        if len(words) != 2:
            raise Unusable(Problem("", f"the header {line!r}", "# @package NAME"))
        if words[0] == "@package":
            return words[1]
    return None


def parse(text: str, *, empty: bool = False) -> DictConfig:
    """The mapping that a YAML text holds, with OmegaConf's reading of numbers (``1e-4`` is one).

    Args:
        empty: a text without settings gives an empty mapping.

    Raises:
        Unusable: syntax, duplicate keys, no mapping at the top level, or aliases that expand without end.
    """
    import yaml
    from omegaconf import DictConfig, OmegaConf

    try:
        if _is_empty(text):
            if empty:
                return OmegaConf.create({})
            raise Unusable(Problem("", "an empty file", "a mapping of settings, such as `img_size: 224`"))
        if text.count("${") > MAX_INTERPOLATIONS:
            found = f"{text.count('${')} interpolations"
            raise Unusable(Problem("", found, f"at most {MAX_INTERPOLATIONS} in a file"))
        if _BASE_60.search(text):  # the time to read one grows with its square
            raise Unusable(Problem("", "a number of a hundred digits to the base 60", WITHIN_BITS))
        if "*" in text:  # aliases: a few lines can expand to gigabytes
            _expect_bounded(text)
        tree = OmegaConf.create(text)
    except Unusable:
        raise
    except RecursionError as error:
        raise Unusable(Problem("", "values nested too deeply", "a plain tree of settings")) from error
    except yaml.MarkedYAMLError as error:
        raise Unusable(marked_problem(error)) from error
    except Exception as error:  # a third-party parser on arbitrary text: whatever it raises, the text is at fault
        raise Unusable(Problem("", f"text that is not a config: {first_line(error)}", "YAML")) from error
    assert isinstance(tree, DictConfig)
    return tree


def marked_problem(error: Exception) -> Problem:
    """A YAML error with its line and column, both counted from 1."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
    what = getattr(error, "problem", None) or first_line(error)
    if what.startswith("found duplicate key"):
        return Problem(where, what.removeprefix("found "), "each key once")
    hint = "indent with spaces" if "'\\t'" in what else ""
    return Problem(where, f"a YAML syntax error: {what}", hint=hint)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _is_empty(text: str) -> bool:
    """Looks at the first YAML event only: OmegaConf would turn a lone word into ``{word: null}``."""
    import yaml

    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.MappingStartEvent):
            return False
        if isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.ScalarEvent) and event.value == "":
                return True
            found = f"a {_kind(event)} at the top level"
            raise Unusable(Problem("", found, "a mapping of settings, such as `img_size: 224`"))
    return True


def _kind(event: object) -> str:
    name = type(event).__name__
    return {"SequenceStartEvent": "list", "ScalarEvent": "single value"}.get(name, name)


def _expect_bounded(text: str) -> None:
    """Counts the nodes that the aliases expand to, without expanding them."""
    import yaml

    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in inside:
            raise Unusable(Problem(_where(node), "an alias of a value inside itself", "a plain tree of settings"))
        if id(node) not in sizes:
            inside.add(id(node))
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(size(child) for child in children)
            inside.discard(id(node))
        return sizes[id(node)]

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and size(root) > MAX_NODES:
        raise Unusable(Problem("", f"aliases that expand to {size(root)} values", f"at most {MAX_NODES} values"))


def _where(node: object) -> str:
    mark = getattr(node, "start_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
