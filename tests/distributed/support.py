"""torchrun around pytest in a test: two ranks on the CPU, what they print, and what is left of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.sessions import HANGS, REPOSITORY, WITHOUT_THEM
from tests.support.warm import warm_python

RED, GREEN = 1, 0
TIMEOUT = "--overfit-set=overfit.distributed.timeout=1200"  # nobody who is lost is found by it in time


@dataclass(frozen=True)
class Launched:
    """torchrun, and the port of its store."""

    process: subprocess.Popen[str]
    port: int

    def finish(self) -> tuple[int, str]:
        """The exit code of torchrun, and what it and its ranks have printed."""
        output, _ = self.process.communicate(timeout=HANGS)
        return self.process.returncode, output

    def ends_red(self, folder: Path) -> str:
        """What was printed by a launch that ended with a failure and left none of its ranks behind."""
        code, output = self.finish()
        assert code == RED, output
        assert workers_of(folder) == []
        return output

    def is_gone(self) -> bool:
        """Whether no process of the launch is left, and nobody listens on its port."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 0)
            return False
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0


@contextlib.contextmanager
def torchrun(folder: Path, *args: str, ranks: int = 2, warm: bool = False) -> Iterator[Launched]:
    """``torchrun --nproc-per-node=2 -m pytest``; whatever is left of it does not outlive the block.

    What is ended by its launcher, or lost, is no test of a ``warm`` interpreter.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    python = warm_python() if warm else (sys.executable,)
    launcher = ["-m", "torch.distributed.run", "--no-python", f"--nproc-per-node={ranks}", f"--master-port={port}"]
    process = subprocess.Popen(
        [*python, *launcher, *python, "-m", "pytest", "-q", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": WITHOUT_THEM},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield Launched(process, port)
    finally:
        for pid in workers_of(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()


def workers_of(folder: Path) -> list[int]:
    """The process ids that the ranks of a test file have written down (``rank<N>.pid``) and that still run."""
    return [pid for file in folder.glob("rank*.pid") if is_alive(pid := int(file.read_text()))]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(path: Path) -> str:
    """What a rank has written to a file, as soon as there is something."""
    deadline = time.monotonic() + HANGS
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.05)
    return path.read_text()


def curve(folder: Path, name: str) -> list[float]:
    """The objective of a run, as a test file has written it down."""
    values: list[float] = json.loads((folder / f"{name}.json").read_text())
    return values


SMALL = """
import json, os, pathlib
import pytest, torch
from torch import nn
from torch.nn import functional as F

RANK = os.environ.get("RANK", "alone")
HERE = pathlib.Path(__file__).parent
(HERE / f"rank{RANK}.pid").write_text(str(os.getpid()))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 32), nn.Linear(32, 32)])
        self.head = nn.Linear(32, 1)

    def forward(self, x):
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(x)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def made():
    torch.manual_seed(0)
    return Net(), (torch.randn(8, 4), torch.randn(8, 1))


def written(result, name):
    (HERE / f"{name}-{RANK}.json").write_text(json.dumps(list(result.record.curves["objective"])))
"""
