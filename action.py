"""What action.yml runs: pytest with its inputs, in one process, which a signal reaches; a word where pytest left none.

Whatever ends before the plugin can tell it (an option of pytest's that is wrong, another plugin that is not there) is
one annotation and one line on the page of the job.
"""

from __future__ import annotations

import glob
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

USAGE = 4
REPORT, DEVICE = "overfit_report", "cpu"
REASONS = {
    1: "a test has failed",
    2: "it was interrupted, or tests could not be collected",
    3: "an error inside of pytest or of a plugin",
    4: "its options or paths are wrong",
    5: "no test was collected",
}


def lines(text: str) -> list[str]:
    """The lines of an input, without blanks around them and without empty ones."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def paths(tests: str) -> Iterator[str]:
    """The paths of an input, patterns as the files that they fit.

    Raises:
        ValueError: a pattern fits nothing.
    """
    for line in lines(tests):
        pattern, colons, rest = line.partition("::")
        if Path(pattern).exists() or not glob.has_magic(pattern):
            yield line
            continue
        found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns
        if not found:
            raise ValueError(f"tests: {pattern} fits no file")
        yield from (f"{path}{colons}{rest}" for path in found)


def arguments(inputs: Mapping[str, str]) -> list[str]:
    """The command line of pytest.

    Raises:
        ValueError: an input is wrong, or nothing was asked for.
    """
    asked = [word for file in lines(inputs.get("CONFIG", "")) for word in ("--overfit-config", file)]
    asked += paths(inputs.get("TESTS", ""))
    if not asked:
        raise ValueError("give config or tests")
    try:
        further = shlex.split(inputs.get("ARGS", ""))
    except ValueError as error:
        raise ValueError(f"args: {inputs['ARGS'].strip()}: {error}") from None
    report = inputs.get("REPORT", "").strip() or REPORT
    device = inputs.get("DEVICE", "").strip() or DEVICE
    kept = ["--overfit-report", report, f"--junitxml={report}/junit.xml"]
    return [*asked, "--overfit-strict", "--overfit-device", device, *kept, *further]


def tell(message: str) -> None:
    """One annotation, and one line on the page of the job."""
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::error::{escaped}", flush=True)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(f"## pytest-overfit: nothing was judged\n\n    {message}\n")


def is_told() -> bool:
    """Whether the page of the job says anything: then the plugin has told how it went."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    return not summary or (Path(summary).is_file() and Path(summary).stat().st_size > 0)


def main() -> int:
    """The exit code of pytest."""
    try:
        words = arguments(os.environ)
    except ValueError as error:
        tell(str(error))
        return USAGE
    if sys.path[:1] == [str(Path(__file__).resolve().parent)]:  # as `python -m pytest` has it, not this repository
        sys.path[0] = str(Path.cwd())
    import pytest

    sys.argv[:] = ["pytest", *words]
    code = int(pytest.console_main())
    if code and not is_told():
        before = " before any test" if code in (USAGE, 5) else ""
        tell(f"pytest ended with exit code {code}{before}: {REASONS.get(code, 'another plugin')}; see the log")
    return code


if __name__ == "__main__":
    sys.exit(main())
