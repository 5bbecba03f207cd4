"""What a strict session asks of every run: a GPU, unless the run names the device that it wants."""

from __future__ import annotations

from dataclasses import replace

from pytest_overfit.settings.keywords import DEFAULT
from pytest_overfit.settings.ladder import Resolved

STRICT = "--overfit-strict"
KEY = "require_gpu"


def strict_settings(resolved: Resolved) -> Resolved:
    """The settings of a run without a config as a strict session runs it.

    Where nobody names a device, the one that the model is on was chosen by nobody either.

    Example:
        >>> from pytest_overfit.settings.ladder import layer_of_keywords, resolve_settings
        >>> given = [{}, {"device": "cpu"}, {"device": "auto"}]
        >>> all_resolved = [resolve_settings([layer_of_keywords("call", keywords)], where="") for keywords in given]
        >>> [strict_settings(resolved).settings.require_gpu for resolved in all_resolved]
        [True, False, True]
    """
    settings, sources = resolved.settings, resolved.sources
    named = settings.device != "auto" and sources.get("device", DEFAULT) != DEFAULT
    if named or settings.require_gpu:
        return resolved
    return Resolved(replace(settings, require_gpu=True), {**sources, KEY: STRICT})
