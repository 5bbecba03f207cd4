"""How long a session outlives its limit when user code hangs, in every place that runs user code.

    python -m benchmarks.hangs [--only WORD] [--limit 2] [--patience 60]

Each kind is a session of its own. Printed are the seconds over the limit, counted from the moment that it is set, until
the failure is told and until the process has ended, the exit code, and the line that was named. Exit code 1 if any is
over 5 s, green, names nothing or leaves a process behind.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.hanging import BEGAN, CALL, CONFIG, CONFIGS, CONFTEST, HEAD

MOST_SECONDS = 5.0  # over the limit
NAMED = re.compile(r"(?:\w+ at (?:\S*/)?|File \"\S*?)((?:test_hang|conftest)\.py)(?::|\", line )(\d+)")
REPOSITORY = Path(__file__).resolve().parents[1]


def session(folder: Path, arguments: Sequence[str], patience: float) -> tuple[float, float, int | None, str]:
    """Seconds until the failure was told and until the end, exit code (None: it had to be killed), output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments]
    path = os.pathsep.join([str(REPOSITORY), str(folder)])
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    code: int | None = None
    try:
        output = process.communicate(timeout=patience)[0]
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output = process.communicate()[0]
    ended = time.time()
    told, began = (float(at.read_text()) if at.exists() else ended for at in (folder / "told", folder / "began"))
    return told - began, ended - began, code, output


def left_behind(folder: Path) -> list[str]:
    """Processes that were started in the folder and are still there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == folder:
                found.append(entry.name)
        except OSError:
            continue
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=2.0)
    parser.add_argument("--patience", type=float, default=60.0)
    parser.add_argument("--show", action="store_true", help="the whole output of every session")
    given = parser.parse_args()
    limit, wrong = given.limit, 0
    kinds = [(kind, text, False) for kind, text in CALL.items()] + [
        (kind, text, True) for kind, text in CONFIGS.items()
    ]
    print(f"{'told':>7} {'over':>7} code  kind: line named")
    for kind, text, configured in [("", CALL["nothing hangs"], False), ("", "", True), *kinds]:
        if kind == "nothing hangs" or (kind and given.only not in kind):
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            body = textwrap.dedent(text)
            (folder / "conftest.py").write_text(BEGAN, encoding="utf-8")
            if configured:
                (folder / "conftest.py").write_text(HEAD + CONFTEST + body + "\n" + BEGAN, encoding="utf-8")
                (folder / "a.yaml").write_text(CONFIG, encoding="utf-8")
                arguments = ["--overfit-config", "a.yaml"]
                arguments += ["--overfit-max-steps", "30"] if not kind or "trial" in kind else []
            else:
                (folder / "test_hang.py").write_text(HEAD + body, encoding="utf-8")
                arguments = ["test_hang.py"]
            if kind:
                arguments += ["--overfit-max-seconds", f"{limit:g}"]
            told, seconds, code, output = session(folder, arguments, given.patience)
            alive = left_behind(folder)
        if given.show:
            print(output)
        if not kind:
            print(f"{'':15} {code!s:>4}  an ordinary session{' of a config' if configured else ''}: {seconds:.1f} s")
            continue
        over = seconds - limit
        named = NAMED.search(output)
        bad = code != 1 or over > MOST_SECONDS or named is None or alive
        wrong += bool(bad)
        shown = "for ever" if code is None else f"{told - limit:+.1f} s {over:+.1f} s"
        place = "nothing" if named is None else ":".join(named.groups())
        mark = f"  WRONG{f' (left behind: {len(alive)})' if alive else ''}" if bad else ""
        print(f"{shown:>15} {code!s:>4}  {kind}: {place}{mark}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
