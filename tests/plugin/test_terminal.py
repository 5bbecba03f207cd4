"""What a person sees: live progress on a terminal, and the table at the end."""

from __future__ import annotations

import os
import re
import threading

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import start_pytest

pty = pytest.importorskip("pty")

STEPS = ("--overfit-set=overfit.criteria.camera=1e-12", "--overfit-set=overfit.budget.max_steps=600")
LINE = re.compile(r"tiny  step \d+/600  objective -?[\d.e-]+  camera [\d.e-]+  depth [\d.e-]+  [\d.]+ steps/s")


def on_a_terminal(pytester: pytest.Pytester, *args: str, columns: int = 120) -> tuple[int, str]:
    """Exit code and everything that was written to a pseudo terminal of some width."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    session = start_pytest(
        "--overfit-config",
        "tiny.yaml",
        *STEPS,
        *args,
        folder=pytester.path,
        tty=theirs,
        TERM="dumb",
        COLUMNS=str(columns),
    )
    os.close(theirs)
    chunks: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(ours, 4096):
                chunks.append(chunk)
        except OSError:  # Linux: the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    code = session.wait(timeout=120)
    reader.join(timeout=20)
    os.close(ours)
    return code, b"".join(chunks).decode()


@pytest.mark.parametrize("flag", ["--capture=fd", "--capture=sys", "-s", "-v"])
def test_progress_shows_on_a_terminal(pytester: pytest.Pytester, tiny: TinyConfig, flag: str) -> None:
    """Step, losses and rate on a line of its own, wiped when the run is over; pytest's own lines stay whole."""
    tiny()
    code, output = on_a_terminal(pytester, flag)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert LINE.search(output)
    assert re.search(r"\r +\r", output)
    plain = [line.rpartition("\r")[2] for line in output.replace("\r\n", "\n").split("\n")]
    assert not [line for line in plain if " step " in line and "steps/s" in line]
    whole = r"tiny\.yaml \.+F" if flag == "-s" else r"tiny\.yaml.* \[100%\]$"  # with -s pytest shows no percentage
    assert any(re.match(whole, line) for line in plain)


@pytest.mark.parametrize("args", [("-q",), ("-n", "2"), ("-p", "no:capture")])
def test_progress_is_absent_where_it_would_be_noise(
    pytester: pytest.Pytester, tiny: TinyConfig, args: tuple[str, ...]
) -> None:
    """Quiet, distributed, or without the means to write past the capture."""
    tiny()
    code, output = on_a_terminal(pytester, *args)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "steps/s" not in output


def test_progress_is_absent_without_a_terminal(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A log file has no carriage returns in it."""
    tiny()
    session = start_pytest("--overfit-config", "tiny.yaml", *STEPS, folder=pytester.path)
    output, _ = session.communicate(timeout=120)
    assert "steps/s" not in output
    assert "\r" not in output


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_the_table_fits_the_terminal(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """No row wraps, limits and margins are whole, and what is cut short there stands in the failures."""
    monkeypatch.setenv("COLUMNS", str(columns))
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--overfit-set=overfit.budget.max_steps=40")
    table = [line for line in result.outlines if line.startswith(("verdict ", "ok  ", "FAILED   "))]
    assert len(table) == 15
    assert max(map(len, table)) <= columns
    result.stdout.fnmatch_lines(
        [
            "camera: loss_camera 0.0* (start 1.512, best 0.0*), allowed < 0.001 for 5 steps in a row",
            "FAILED   camera          loss_camera 0.0*  < 0.001  0.0*x",
            "ok       depth           loss_reg_depth 0.00*  < 0.01   1.*x     *[0-9]",
        ]
    )


def test_a_table_reads_from_the_cause_to_the_effect(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Rows stand in the order of the items, whatever their outcome."""
    tiny()
    result = pytester.runpytest_inprocess(
        "--overfit-config",
        "tiny.yaml",
        "--overfit-set=optim.frozen_module_names=[trunk]",
        "-k",
        "gradients or depth or pair",
    )
    rows = [line.split()[:2] for line in result.outlines if line.startswith(("ok  ", "FAILED   "))]
    assert rows == [["ok", "pair"], ["ok", "gradients"], ["FAILED", "depth"]]
