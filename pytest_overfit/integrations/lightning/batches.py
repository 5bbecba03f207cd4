"""The one batch of a run: given, or the first of a DataModule's or of the module's own training data."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_overfit.errors import OverfitError

Transfer = Callable[[Any, int], Any]


def is_datamodule(data: Any) -> bool:
    """Whether this is a LightningDataModule, told by its classes alone."""
    return any(kind.__name__ == "LightningDataModule" for kind in type(data).__mro__)


def overrides(module: Any, name: str) -> bool:
    """Whether a method is the user's: not inherited from Lightning's own classes.

    Example:
        >>> overrides(module, "train_dataloader")       # doctest: +SKIP
        True
    """
    home = next((kind for kind in type(module).__mro__ if name in vars(kind)), object)
    return home.__module__.partition(".")[0] not in ("pytorch_lightning", "lightning", "builtins")


def first_of(source: Any) -> Any:
    """The first batch of ``source.train_dataloader()``; of several loaders one batch each, in their nest.

    Raises:
        OverfitError: there is none.
    """
    loaders = source.train_dataloader()
    if loaders is None:
        raise OverfitError(
            f"{type(source).__name__}.train_dataloader() returned nothing",
            where="data",
            allowed="a DataLoader, or a list or mapping of them",
        )
    return _first(loaders)


def _first(loaders: Any) -> Any:
    if isinstance(loaders, Mapping):
        return {name: _first(loader) for name, loader in loaders.items()}
    if type(loaders) in (list, tuple):
        return type(loaders)(_first(loader) for loader in loaders)
    for batch in loaders:
        return batch
    raise OverfitError("the training loader gives no batch", where="data", allowed="a loader of at least one batch")


def transfers(module: Any, datamodule: Any) -> list[Transfer]:
    """The hooks before and after the transfer of a batch; a DataModule's own comes before the module's."""
    return list(_transfers(module, datamodule))


def _transfers(module: Any, datamodule: Any) -> Iterator[Transfer]:
    for name in ("on_before_batch_transfer", "on_after_batch_transfer"):
        home = next((thing for thing in (datamodule, module) if thing is not None and overrides(thing, name)), None)
        if home is not None:
            yield getattr(home, name)


def discarded(training_step: Callable[..., Any]) -> tuple[str, ...]:
    """The places of a batch that a training step unpacks into names that begin with an underscore.

    Example:
        >>> class AutoEncoder(LightningModule):                             # doctest: +SKIP
        ...     def training_step(self, batch, batch_idx):
        ...         x, _ = batch
        >>> discarded(AutoEncoder().training_step)                          # doctest: +SKIP
        ('1',)

    An autoencoder does not look at the labels of its data, and says so.
    """
    try:
        batch = next(iter(inspect.signature(training_step).parameters), "")
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(training_step))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return ()
    if not isinstance(function, ast.FunctionDef):
        return ()
    return tuple(
        str(index)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id == batch
        for target in node.targets
        if isinstance(target, (ast.Tuple, ast.List))
        for index, element in enumerate(target.elts)
        if isinstance(element, ast.Name) and element.id.startswith("_")
    )
