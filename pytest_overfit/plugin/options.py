"""The command line and ini options, as pytest registers them at every start: nothing heavy is imported here."""

from __future__ import annotations

import argparse
import math
from typing import Any

from pytest_overfit.text import LANGUAGES

MOST_DIGITS = 19
# Options of pytest that run no test.
LOOKING = ("collectonly", "showfixtures", "show_fixtures_per_test", "cacheshow", "setupplan", "setuponly")


def steps(text: str) -> int:
    """``--overfit-max-steps``."""
    number = _whole(text.strip())
    if not number:
        raise argparse.ArgumentTypeError(f"found {text!r:.120}, allowed: a whole number of at least 1")
    return number


def seconds(text: str) -> float:
    """``--overfit-max-seconds``."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: a number above 0")
    return number


def seeds(text: str) -> tuple[int, ...]:
    """``--overfit-seeds``.

    Example:
        >>> seeds("0, 1,2")
        (0, 1, 2)
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [number for part in parts if (number := _whole(part)) is not None and number < 2**32]
    if len(numbers) < len(parts) or len({*numbers}) < len(numbers):
        allowed = f"distinct whole numbers from 0 to {2**32 - 1}, such as 0,1,2"
        raise argparse.ArgumentTypeError(f"found {text!r:.120}, allowed: {allowed}")
    return tuple(numbers)


def _whole(text: str) -> int | None:
    """The number that digits spell, few enough of them for Python to convert."""
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


OPTIONS: dict[str, dict[str, Any]] = {
    "--overfit-config": {
        "action": "append",
        "metavar": "FILE",
        "help": "config file of one bounded overfit run, each criterion a test; may be repeated",
    },
    "--overfit-set": {
        "action": "append",
        "metavar": "KEY=VALUE",
        "help": "override a key of every config, such as seed_value=1; keys below overfit. are for every test's run",
    },
    "--overfit-max-steps": {"type": steps, "metavar": "N", "help": "the most optimizer steps of a run"},
    "--overfit-max-seconds": {"type": seconds, "metavar": "S", "help": "the most seconds of a run"},
    "--overfit-seeds": {"type": seeds, "metavar": "0,1,2", "help": "one run for each of these seeds"},
    "--overfit-device": {
        "metavar": "DEVICE",
        "help": "auto, model, cpu, cuda, cuda:N, mps, xpu, or another of torch",
    },
    "--overfit-require-gpu": {"action": "store_true", "help": "fail where no GPU is found"},
    "--overfit-strict": {
        "action": "store_true",
        "help": "fail on whatever leaves an overfit test unjudged: a skip, an expected miss, a missing GPU, no run",
    },
    "--overfit-log-dir": {"metavar": "DIR", "help": "folder of the TensorBoard files"},
    "--overfit-report": {"metavar": "DIR", "help": "folder of the report: a page and a record of every run"},
    "--overfit-lang": {
        "choices": LANGUAGES,
        "help": "language of terminal, experiment records and pages (default: en)",
    },
    "--overfit-save": {"metavar": "NAME", "help": "save the numbers of every run under a name, to compare with later"},
    "--overfit-compare": {"metavar": "NAME", "help": "compare every run with what was saved under a name"},
    "--overfit-compare-fail": {
        "action": "append",
        "metavar": "QUANTITY:RATIO",
        "help": "fail where a quantity grew by more than this, such as steps:1.5x, or where the losses left the saved "
        "curve by more, relative: curve:1e-4; may be repeated",
    },
    "--overfit-explain": {
        "action": "store_true",
        "help": "show every setting of every run, and where it comes from; no test is run",
    },
}
INI: dict[str, dict[str, Any]] = {
    "overfit_config": {"type": "linelist", "help": "config files to run beside the tests, one per line"},
    "overfit_set": {"type": "linelist", "help": "like --overfit-set, one per line; a config's own keys win"},
    "overfit_max_steps": {"help": "default of --overfit-max-steps"},
    "overfit_max_seconds": {"help": "default of --overfit-max-seconds"},
    "overfit_seeds": {"help": "default of --overfit-seeds"},
    "overfit_device": {"help": "default of --overfit-device"},
    "overfit_require_gpu": {"type": "bool", "default": False, "help": "default of --overfit-require-gpu"},
    "overfit_strict": {"type": "bool", "default": False, "help": "default of --overfit-strict"},
    "overfit_log_dir": {"help": "default of --overfit-log-dir"},
    "overfit_report": {"help": "default of --overfit-report"},
    "overfit_lang": {"help": "default of --overfit-lang"},
    "overfit_compare": {"help": "default of --overfit-compare"},
    "overfit_compare_fail": {"type": "linelist", "help": "like --overfit-compare-fail, one per line"},
    "overfit_storage": {"help": "folder of the saved runs (default: .overfit beside the ini file)"},
    "overfit_keep": {"type": "bool", "default": True, "help": "keep a report of what failed in .overfit/last"},
    "overfit_properties": {"type": "bool", "default": True, "help": "put the numbers of a run into the JUnit report"},
}
