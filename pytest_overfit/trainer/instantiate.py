"""From the ``_target_`` sections of a config to live objects: model, loss, optimizer.

The rules are Hydra's (``_target_``, ``_args_``, ``_partial_``, ``_recursive_``). The code is ours because hydra-core
brings a pytest plugin of its own that costs a second at every start of pytest, this plugin used or not.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import traceback
from collections.abc import Mapping
from typing import Any

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.errors.suggest import nearest
from pytest_overfit.settings.problems import did_you_mean
from pytest_overfit.trainer.arguments import expect_taken

DIRECTIVES = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")


def instantiate(
    node: Mapping[str, Any], *, where: str, partial: bool = False, recursive: bool = True, plain: bool = False
) -> Any:
    """Calls the ``_target_`` of a config section with the section's other keys.

    Example:
        >>> instantiate({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}, where="model")
        Linear(in_features=3, out_features=2, bias=True)

    Args:
        node: a section with ``_target_``; nested sections with one are instantiated first, unless ``_recursive_`` is
            false. ``_args_`` are positional arguments; ``_partial_`` gives back a callable instead of calling. Sections
            are handed over as ``DictConfig`` (attributes, ``.get``), lists of sections as ``ListConfig``, wherever
            OmegaConf is installed, as it is beside every Hydra trainer; lists of values as lists. With ``_convert_``
            other than none all are plain containers.
        where: the dotted key of the section, for the error.
        partial: as ``_partial_``.
        recursive: what holds where the section has no ``_recursive_``: trainers give it in their call.
        plain: as ``_convert_: all``.

    Raises:
        ConfigError: the target cannot be imported, or refuses its arguments.
    """
    target = find_target(str(node["_target_"]), where=where)
    given = {str(key): value for key, value in node.items() if key not in DIRECTIVES}
    arguments = list(node.get("_args_", ()))
    if node.get("_recursive_", recursive):
        given = {key: _nested(value, where=f"{where}.{key}") for key, value in given.items()}
        arguments = [_nested(value, where=f"{where}._args_[{index}]") for index, value in enumerate(arguments)]
    expect_taken(target, str(node["_target_"]), given, where=where)
    if not plain and node.get("_convert_", "none") == "none":
        given = {key: _handed(value) for key, value in given.items()}
        arguments = [_handed(value) for value in arguments]
    if partial or node.get("_partial_", False):
        return functools.partial(target, *arguments, **given)
    try:
        return target(*arguments, **given)
    except OverfitError as error:
        place = f"{where}: {error.where}" if error.where else where
        raise ConfigError(error.found, where=place, allowed=error.allowed, hint=error.hint) from error
    except Exception as error:  # the target is the user's: whatever it raises is a problem of this section
        found = f"{node['_target_']} cannot be built: {type(error).__name__}: {error}{_root_of(error)}"
        if (line := _users_line(error)) is not None:
            hint = "look at that line: the call itself went through"
            raise ConfigError(found, where=f"{where}, at {line}", allowed="code that builds it", hint=hint) from error
        hint = f"the section gives it {', '.join(given) or 'no arguments'}"
        raise ConfigError(found, where=where, allowed="arguments that it accepts", hint=hint) from error


def expect_target(node: Mapping[str, Any], *, where: str) -> None:
    """Looks at the class of a section and at its keys, without calling it.

    Raises:
        ConfigError: as `instantiate`.
    """
    if "_target_" in node:
        target = find_target(str(node["_target_"]), where=where)
        given = {str(key): value for key, value in node.items() if key not in DIRECTIVES}
        expect_taken(target, str(node["_target_"]), given, where=where)


def _users_line(error: BaseException) -> str | None:
    """The innermost line of the user's own behind a call; None where the call itself, or a library, refuses it."""
    from pytest_overfit.run.stack_lines import is_library

    frames = [(frame.f_code.co_filename, number) for frame, number in traceback.walk_tb(error.__traceback__)]
    lines = [f"{path}:{number}" for path, number in frames if not is_library(path)]
    return lines[-1] if lines else None


def find_target(dotted: str, *, where: str) -> Any:
    """The object behind a dotted path: a module, then attributes.

    Raises:
        ConfigError: there is none, or it cannot be called; the nearest name of the last module is suggested.
    """
    parts = dotted.split(".")
    for split in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                continue
            raise _unimportable(dotted, where, f"importing {name} needs the module {error.name!r}") from error
        except Exception as error:
            raise _unimportable(dotted, where, f"importing {name} raises {type(error).__name__}: {error}") from error
        for part in parts[split:]:
            if not hasattr(found, part):
                raise _unimportable(dotted, where, f"{name} has no {part!r}", did_you_mean(part, _names_in(found)))
            found = getattr(found, part)
        if not callable(found):
            raise _unimportable(dotted, where, f"it is a {type(found).__name__}")
        return found
    guess = nearest(parts[0], {module.name for module in pkgutil.iter_modules()}, cutoff=0.7)
    hint = f"did you mean {guess}?" if guess else ""
    raise _unimportable(dotted, where, f"there is no module {parts[0]!r}", hint)


def _names_in(found: Any) -> set[str]:
    """What a module has, submodules that nobody has imported and names that it makes on demand among it."""
    inside = pkgutil.iter_modules(getattr(found, "__path__", ()))
    return {*dir(found), *getattr(found, "__all__", ()), *(module.name for module in inside)}


def _handed(value: Any) -> Any:
    """A container as Hydra hands it over; torch takes sizes as lists, so lists of values stay lists."""
    if not isinstance(value, (Mapping, list)) or (isinstance(value, list) and not any(map(_is_section, value))):
        return value
    try:
        from omegaconf import OmegaConf
    except ImportError:
        return value
    plain: Any = value
    return OmegaConf.create(plain, flags={"allow_objects": True})


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(map(_is_section, value)))


def _root_of(error: BaseException) -> str:
    """The first error of a chain, which what was raised last may not tell."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    return "" if root is error or str(root) in str(error) else f" (from {type(root).__name__}: {root})"


def _nested(value: Any, *, where: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return instantiate(value, where=where)
        return {key: _nested(item, where=f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nested(item, where=f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def _unimportable(dotted: str, where: str, reason: str, hint: str = "") -> ConfigError:
    return ConfigError(
        f"_target_ {dotted!r} cannot be used: {reason}",
        where=f"{where}._target_",
        allowed="the dotted path of a callable that this Python can import",
        hint=hint or "a module beside the config file, in a folder of overfit.import_roots, or an installed one",
    )
