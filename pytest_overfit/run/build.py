"""From the ``_target_`` sections of a config to live objects: model, loss, optimizer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_overfit.errors import ConfigError, OverfitError


def instantiate(node: Mapping[str, Any], *, where: str, partial: bool = False) -> Any:
    """Calls the ``_target_`` of a config section with the section's other keys, as Hydra does.

    Example:
        >>> instantiate({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}, where="model")
        Linear(in_features=3, out_features=2, bias=True)

    Args:
        node: a section with ``_target_``; nested sections with one are instantiated too.
        where: the dotted key of the section, for the error.
        partial: give back a callable that waits for further arguments.

    Raises:
        ConfigError: the target cannot be imported, or refuses its arguments.
    """
    from hydra.errors import HydraException
    from hydra.utils import instantiate as hydra_instantiate

    section = {**node, "_partial_": True} if partial else dict(node)
    try:
        return hydra_instantiate(section, _convert_="all")
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, OverfitError):
            raise ConfigError(
                cause.found,
                where=f"{where}: {cause.where}" if cause.where else where,
                allowed=cause.allowed,
                hint=cause.hint,
            ) from error
        detail = f"{type(cause).__name__}: {cause}" if cause is not None else str(error)
        raise ConfigError(
            f"_target_ {node.get('_target_')!r} cannot be built: {detail.splitlines()[0]}",
            where=where,
            allowed="an importable callable that accepts the section's other keys",
            hint=f"python -c 'import {str(node.get('_target_')).rpartition('.')[0]}' shows whether it can be imported",
        ) from error


@contextlib.contextmanager
def import_root(folder: Path) -> Iterator[None]:
    """Makes modules beside a config importable while its targets are built."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)
