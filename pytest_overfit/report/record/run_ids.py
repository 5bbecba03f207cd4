"""The name of a run's folder, and when it began; without what reads records, which is long to import."""

from __future__ import annotations

import hashlib
from datetime import datetime

from pytest_overfit.report.folders import folder_name

LONGEST = 60  # characters of a name, without its digest


def run_id(title: str, call: int = 1) -> str:
    """A folder name on every platform: readable, and another one for every title and call.

    Example:
        >>> run_id("tests/test_a.py::test_b[<script>]", call=2)
        'test_a.py_test_b_script_-b6b9f62b-2'
    """
    tail = title.replace("\\", "/").rpartition("::")
    named = tail[0].rpartition("/")[2] + tail[1] + tail[2] if tail[1] else tail[2].rpartition("/")[2]
    digest = hashlib.sha256(title.encode()).hexdigest()[:8]
    return f"{folder_name(named, slice(-LONGEST, None))}-{digest}" + (f"-{call}" if call > 1 else "")


def now() -> str:
    """The local time with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
