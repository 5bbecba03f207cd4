"""What a warm interpreter starts is a process of its own, as the interpreter would have started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.sessions import HANGS
from tests.support.warm import warm_python

pytestmark = pytest.mark.skipif(len(warm_python()) == 1, reason="processes are not forked here")
WAITS = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


def started(code: str, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    command = [*warm_python(), "-c", code, *arguments]
    environment = {**os.environ, **environment}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_it_has_what_it_was_given(tmp_path: Path) -> None:
    """Arguments, folder, environment, modules of PYTHONPATH, both streams and the exit code."""
    (tmp_path / "found.py").write_text("HERE = 1")
    code = "import os, sys, found; print(sys.argv[1:], os.getcwd(), os.environ['GIVEN']); sys.exit('bad')"
    child = started(code, "a", "b c", cwd=tmp_path, GIVEN="here", PYTHONPATH=str(tmp_path))
    assert child.communicate() == (f"['a', 'b c'] {tmp_path} here\n", "bad\n")
    assert child.returncode == 1


def test_torch_is_there_and_the_package_is_not() -> None:
    """Which is what it is for: what a test of imports asks is asked of a true interpreter."""
    code = "import sys; print('torch' in sys.modules, 'pytest_overfit' in sys.modules)"
    assert started(code).communicate()[0] == "True False\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_both(number: signal.Signals) -> None:
    """Whoever started it sees what ended it, and nothing is left."""
    child = started(WAITS)
    assert child.stdout is not None
    forked = int(child.stdout.readline())
    child.send_signal(number)
    child.communicate()
    assert child.returncode == -number
    deadline = time.monotonic() + HANGS
    while Path(f"/proc/{forked}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_at_once() -> None:
    """Each has its own end."""
    children = [started(f"import sys; sys.exit({code})") for code in range(5)]
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [*range(5)]
    assert sys.executable in warm_python()
