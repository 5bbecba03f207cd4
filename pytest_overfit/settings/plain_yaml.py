"""YAML as a config file is read: plain containers, ``1e-4`` a number, a date a text, each key once."""

from __future__ import annotations

import functools
import re
from typing import Any

# YAML 1.2's numbers, which YAML 1.1 reads as text where there is no dot or no sign in the exponent.
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


def load(text: str) -> Any:
    """What a YAML text holds.

    Example:
        >>> load("{lr: 1e-4, day: 2024-01-01}")
        {'lr': 0.0001, 'day': '2024-01-01'}

    Raises:
        yaml.YAMLError: a syntax error, or a key that is given twice.
    """
    import yaml

    return yaml.load(text, Loader=_loader())


@functools.cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:str" and key.value in seen:
                    found = f"found duplicate key {key.value}"
                    raise yaml.constructor.ConstructorError(None, node.start_mark, found, key.start_mark)
                seen.add(key.value)
            return dict(super().construct_mapping(node, deep=deep))

    Loader.yaml_implicit_resolvers = {
        sign: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
        for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    return Loader


def key_lines(text: str) -> dict[str, int]:
    """Every dotted key of a YAML text with its line, from 1; those of a list are numbers.

    Example:
        >>> key_lines("optim:\\n  lr: [{peak: 1}]\\n")
        {'optim': 1, 'optim.lr': 2, 'optim.lr.0': 2, 'optim.lr.0.peak': 2}
    """
    import yaml

    lines: dict[str, int] = {}

    def walk(node: Any, key: str) -> None:
        pairs = [(f"{part.value}", part, child) for part, child in node.value] if node.id == "mapping" else []
        pairs += [(f"{place}", child, child) for place, child in enumerate(node.value)] if node.id == "sequence" else []
        for part, mark, child in pairs:
            name = f"{key}.{part}" if key else part
            if name not in lines:  # an alias may stand inside of itself
                lines[name] = mark.start_mark.line + 1
                walk(child, name)

    root = yaml.compose(text, Loader=_loader())
    if root is not None:
        walk(root, "")
    return lines
