"""Settings of the command line, looked at before a session runs: what is wrong whatever a test says besides."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from pytest_overfit.settings.criteria_section import read_overfit
from pytest_overfit.settings.keywords import COMMAND_LINE, keys
from pytest_overfit.settings.ladder import layer_of_overrides
from pytest_overfit.settings.problems import Problem, report
from pytest_overfit.settings.section import Section
from pytest_overfit.settings.settings import ANY_MODEL


def refuse_overrides(texts: Sequence[str]) -> None:
    """One error for every key that is none, and for every value that its setting cannot have.

    What depends on a test's marker, call or config (which criteria there are, whose folder a path is in) is read there.

    Raises:
        ConfigError: something is wrong with them.
    """
    layer, problems = layer_of_overrides(COMMAND_LINE, texts), list[Problem]()
    read_overfit(Section(copy.deepcopy(dict(layer.values)), "overfit", problems), ANY_MODEL, Path(), in_config=False)
    plain = {f"overfit.{key}" for key in keys().values() if not key.startswith("criteria.")}
    wrong = [each for each in problems if each.found.startswith("an unknown key") or _is_said(each, plain)]
    if wrong:
        raise report([(COMMAND_LINE, each) for each in dict.fromkeys(wrong)], texts)


def _is_said(problem: Problem, plain: set[str]) -> bool:
    return any(f"{problem.key}[".startswith(f"{key}[") for key in plain)
