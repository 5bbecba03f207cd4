"""Sessions of example_configs/quick.yaml that are killed at random moments: what is left has to be sound.

    python benchmarks/kills.py [--kills 30] [--seed 0] [--workers 2]

One session runs to its end first and must be green; its length is the time in which the others get SIGTERM, SIGINT or
SIGKILL. They all write into the same folders: report, log, saved runs. After every kill: no green exit code; every
record is read, or is not there; no file that was being written counts as a record; the saved runs are read, or are not
there; no process of the session is left after a minute (workers of pytest-xdist included: every third session has
some), and no lock is held.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
MARK = "PYTEST_OVERFIT_KILLS"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
LEAVES = 60.0  # seconds that the last process of a killed session may take to end
HANGS = 600.0


@dataclass(frozen=True)
class Place:
    """The folders of all sessions, and a mark in the environment by which their processes are known."""

    folder: Path
    mark: str

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        """A session of its own process group, as a shell would start it."""
        command = [
            sys.executable, "-m", "pytest", "-c", "pytest.ini", "-p", "no:cacheprovider", "--overfit-report", "report",
            "--overfit-log-dir", "logs", "--overfit-save", "main", "--overfit-set", "overfit.diagnose_seconds=5",
            "--overfit-config", str(ROOT / "example_configs" / "quick.yaml"), *args,
        ]  # fmt: skip
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, MARK: self.mark, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
            stdout=(self.folder / "output").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def processes(self) -> list[int]:
        """Every living process of the sessions."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"{MARK}={self.mark}".encode() in environment and state != "Z":
                found.append(int(folder.name))
        return found

    def left(self) -> list[int]:
        """The processes that do not end by themselves within a minute; they are ended here."""
        until = time.monotonic() + LEAVES
        while (found := self.processes()) and time.monotonic() < until:
            time.sleep(0.1)
        for process in found:
            os.kill(process, signal.SIGKILL)
        return found

    def problems(self) -> Iterator[str]:
        """What is wrong with the files that are left."""
        from pytest_overfit.errors import OverfitError
        from pytest_overfit.report.record.folder import RUNS, read_document, read_report
        from pytest_overfit.report.record.saved import read_saved

        try:
            documents = read_report(self.folder / "report")
            if len(documents) > 1:
                yield f"{len(documents)} records of one run"
            for path in (self.folder / "report" / RUNS).glob("*/record.json"):
                read_document(path)
        except OverfitError as error:
            yield f"record: {error!s:.120}"
        saved = self.folder / ".overfit" / "main.json"
        try:
            if saved.exists():
                read_saved(saved)
        except OverfitError as error:
            yield f"saved runs: {error!s:.120}"
        yield from self._held()

    def _held(self) -> Iterator[str]:
        import fcntl

        for path in self.folder.rglob("*overfit_cores*/*"):
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    yield f"held: {path}"

    def state(self) -> str:
        """What the record says."""
        from pytest_overfit.errors import OverfitError
        from pytest_overfit.report.record.folder import read_report

        try:
            return ", ".join(document.state for document in read_report(self.folder / "report")) or "absent"
        except OverfitError:
            return "broken"


def killed(place: Place, number: int, random: Random, seconds: float, workers: int) -> tuple[str, list[str]]:
    """One session with its kill: a line, and what was wrong."""
    which, moment = SIGNALS[number % len(SIGNALS)], random.uniform(0.02, 0.95) * seconds
    spread = workers if number // len(SIGNALS) % 3 == 2 else 0
    session = place.start(*(["-n", str(spread)] if spread else []))
    try:
        session.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        session.send_signal(which)
    try:
        code = session.wait(timeout=HANGS)
        wrong = []
    except subprocess.TimeoutExpired:
        session.kill()
        code, wrong = session.wait(), ["it did not end"]
    left = place.left()
    if left:
        wrong.append(f"{len(left)} processes left")
    if code == 0:
        wrong.append("a green exit code")
    wrong.extend(place.problems())
    how = f"{which.name} after {moment:5.1f} s{f', {spread} workers' if spread else ''}"
    line = f"{number + 1:3}  {how:34} exit {code:4}  record {place.state():12} {'; '.join(wrong) or 'ok'}"
    return line, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="of pytest-xdist, in every third round")
    options = parser.parse_args()
    random, failures = Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name), uuid.uuid4().hex)
        (place.folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        began = time.monotonic()
        code = place.start().wait(timeout=HANGS)
        seconds = time.monotonic() - began
        print(f"  0  not killed, {seconds:.1f} s                exit {code:4}  record {place.state()}", flush=True)
        if code != 0:
            sys.exit((place.folder / "output").read_text(encoding="utf-8", errors="replace"))
        for number in range(options.kills):
            line, wrong = killed(place, number, random, seconds, options.workers)
            failures += bool(wrong)
            print(line, flush=True)
    print(f"{options.kills} kills, {failures} with something wrong")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
