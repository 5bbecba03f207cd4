"""What a person sees meanwhile: one line on a terminal, a line now and then in a log."""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import HANGS, start_pytest

pty = pytest.importorskip("pty")

SETTINGS = ("criteria.camera=1e-12", "budget.max_steps=300", "diagnose_seconds=2")
STEPS = tuple(f"--overfit-set=overfit.{text}" for text in SETTINGS)
NUMBER = r"-?[\d.e+-]+"
LINE = re.compile(
    rf"tiny  \d+/300  objective {NUMBER}  camera {NUMBER}  depth {NUMBER}  "
    r"[\d.]+/s  \d+:\d\d<\d+:\d\d"
)
OFTEN = """
import pytest_overfit.plugin.screen

pytest_overfit.plugin.screen.LOG_SECONDS = {seconds}
"""


@pytest.fixture(autouse=True)
def nobody_is_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions here are a person's, wherever these tests run."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


class Terminal:
    """A session on a pseudo terminal of some width, and everything that it has written."""

    def __init__(self, pytester: pytest.Pytester, *args: str, columns: int = 120) -> None:
        import fcntl
        import struct
        import termios

        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.session = start_pytest(*args, folder=pytester.path, tty=theirs, TERM="dumb", COLUMNS=str(columns))
        os.close(theirs)
        self.chunks: list[bytes] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode()

    @property
    def lines(self) -> list[str]:
        """What is left to see of every line."""
        return [line.rpartition("\r")[2] for line in self.text.replace("\r\n", "\n").split("\n")]

    def wait(self) -> int:
        code = self.session.wait(timeout=HANGS)
        self.reader.join(timeout=HANGS)
        os.close(self.ours)
        return code

    def _read(self) -> None:
        try:
            while chunk := os.read(self.ours, 4096):
                self.chunks.append(chunk)
        except OSError:  # Linux: the other end is closed
            pass


def on_a_terminal(pytester: pytest.Pytester, *args: str) -> Terminal:
    """A run of the tiny config that fails, over."""
    terminal = Terminal(pytester, "--overfit-config", "tiny.yaml", *STEPS, *args)
    assert terminal.wait() == pytest.ExitCode.TESTS_FAILED
    return terminal


@pytest.mark.parametrize("flag", ["--capture=fd", "--capture=sys", "-s", "-v"])
def test_progress_shows_on_a_terminal(pytester: pytest.Pytester, tiny: TinyConfig, flag: str) -> None:
    """Every phase on a line of its own, wiped when the run is over; pytest's own lines stay whole."""
    tiny()
    terminal = on_a_terminal(pytester, flag)
    assert LINE.search(terminal.text)
    phases = ("pair", "loader", "warm-up", "training", "probes", r"trial 1/\d: [a-z]")
    found = [re.search(rf"\rtiny  {phase}", terminal.text) for phase in phases]
    places = [match.start() for match in found if match]
    assert len(places) == len(phases)
    assert places == sorted(places)
    assert re.search(r"\rtiny  trial \d/\d: .*, step \d+/300, at most \d+ s left", terminal.text)
    assert re.search(r"\r +\r", terminal.text)
    assert not [line for line in terminal.lines if line.startswith("tiny  ")]
    dots = [line for line in terminal.lines if line.startswith(("tiny.yaml .", "tiny.yaml F"))]
    if flag == "-v":
        assert any(re.fullmatch(r"tiny\.yaml::pair PASSED +\[ +\d+%\]", line) for line in terminal.lines)
    else:  # with -s pytest shows no percentage
        assert [bool(re.fullmatch(r"tiny\.yaml [.Fs]{15}( +\[100%\])?", line)) for line in dots] == [True]


def test_a_narrow_terminal_cuts_the_line(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """It never wraps; the rate and the name give way to the numbers."""
    tiny()
    terminal = Terminal(pytester, "--overfit-config", "tiny.yaml", *STEPS, "-k", "finite", columns=60)
    assert terminal.wait() == pytest.ExitCode.OK
    shown = [line for line in re.split(r"[\r\n]", terminal.text) if re.match(r"tiny  |\d+/300  ", line)]
    assert any(re.match(rf"\d+/300  (objective )?{NUMBER}  (camera )?{NUMBER}  ", line) for line in shown)
    timed = [line for line in shown if re.match(r"\d+/300  ", line)]
    assert all(re.search(r"  \d:\d\d(<\d:\d\d)?\s*$", line) for line in timed), timed
    assert not any(re.search(r"/s\b", line) for line in shown)
    assert max(map(len, shown)) < 60


def test_ctrl_c_leaves_a_clean_line(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The line is wiped, with the ^C that the terminal has put behind it."""
    tiny()
    endless = ("overfit.criteria.camera=1e-12", "optim.optimizer.lr=1e-5", "overfit.budget.max_steps=1000000")
    terminal = Terminal(pytester, "--overfit-config", "tiny.yaml", *(f"--overfit-set={text}" for text in endless))
    deadline = time.monotonic() + HANGS
    while not re.search(r"tiny  \d\d+/1000000  ", terminal.text) and time.monotonic() < deadline:
        time.sleep(0.05)
    terminal.session.send_signal(signal.SIGINT)
    assert terminal.wait() == pytest.ExitCode.INTERRUPTED
    assert re.search(rf"tiny  \d\d+/1000000  objective {NUMBER}  camera {NUMBER}", terminal.text)
    assert not [line for line in terminal.lines if line.startswith("tiny  ") or "^C" in line]
    assert any("INTERRUPTED; cpu" in line for line in terminal.lines)


@pytest.mark.parametrize("args", [("-q",), ("-n", "2"), ("-p", "no:capture")])
def test_progress_is_absent_where_it_would_be_noise(
    pytester: pytest.Pytester, tiny: TinyConfig, args: tuple[str, ...]
) -> None:
    """Quiet, distributed, or without the means to write past the capture; the summary says where the time went."""
    tiny()
    terminal = on_a_terminal(pytester, *args)
    assert "tiny  " not in terminal.text
    told = any(re.match(r"time: warm-up [\d.]+ s, training .* s, probes .* s, trials", x) for x in terminal.lines)
    assert told == ("-q" not in args)


def log_of(pytester: pytest.Pytester, *args: str) -> list[str]:
    """The lines of a session whose output nobody watches."""
    session = start_pytest("--overfit-config", "tiny.yaml", *STEPS, *args, folder=pytester.path)
    output, _ = session.communicate(timeout=HANGS)
    assert session.returncode == pytest.ExitCode.TESTS_FAILED
    assert "\r" not in output
    return str(output).splitlines()


def test_a_log_has_a_line_now_and_then(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Whole lines, no more of them than the time allows."""
    tiny()
    pytester.makeconftest(OFTEN.format(seconds=0.5))
    begun = time.monotonic()
    lines = log_of(pytester)
    seconds = time.monotonic() - begun
    shown = [line for line in lines if line.startswith("tiny  ")]
    assert any(LINE.fullmatch(line) for line in shown)
    assert 1 <= len(shown) <= seconds / 0.5


@pytest.mark.parametrize(("seconds", "args"), [(1000, ()), (0, ("-q",)), (0, ("-n", "2"))])
def test_a_log_has_nothing(pytester: pytest.Pytester, tiny: TinyConfig, seconds: int, args: tuple[str, ...]) -> None:
    """Of a run that is over before the first line is due, of a quiet session, of the workers of pytest-xdist."""
    tiny()
    pytester.makeconftest(OFTEN.format(seconds=seconds))
    lines = log_of(pytester, *args)
    assert not [line for line in lines if line.startswith("tiny  ")]
    assert any(line.startswith("time: warm-up ") for line in lines) == ("-q" not in args)


@pytest.mark.parametrize("name", ["CI", "BUILD_NUMBER"])
def test_a_terminal_of_a_ci_machine_is_a_log(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Some give their jobs a terminal, and keep every carriage return."""
    tiny()
    monkeypatch.setenv(name, "1")
    pytester.makeconftest(OFTEN.format(seconds=0.5))
    terminal = on_a_terminal(pytester, "-k", "camera")
    assert "\rtiny" not in terminal.text
    assert any(LINE.fullmatch(line) for line in terminal.lines)
