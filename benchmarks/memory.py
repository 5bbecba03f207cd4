"""What a run needs beside the model: peaks of memory over a bare loop, in units of the model's parameters.

    python benchmarks/memory.py [--parameters 50 200] [--steps 20]

Each side is a process of its own on the CPU, with AdamW: its peak of resident memory, less what it had when model and
batch were there. A bare loop holds parameters (not counted), gradients and two moments of the optimizer. Promised
beside it, in units of the parameters: a run at most 1.1 more, one that passes with its diagnosis 1.3, one that fails
with its trials 2.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

LAYERS = 4
PROMISED = {"bare": 0.0, "run": 1.1, "passing": 1.3, "failing": 2.0}
MIB = 2**20


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096


class Peak:
    """The largest resident memory of a block, looked at every two milliseconds."""

    def __enter__(self) -> Peak:
        self.start = self.highest = resident()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()
        return self

    def _follow(self) -> None:
        while not self.over.is_set():
            self.highest = max(self.highest, resident())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    @property
    def bytes(self) -> int:
        """Above the start."""
        return self.highest - self.start


def side(name: str, millions: float, steps: int) -> tuple[int, int]:
    """The peak of one side over its start, and the size of the parameters, in bytes."""
    from pytest_overfit import run_overfit

    torch.manual_seed(0)
    torch.set_num_threads(1)
    width = int((millions * 1e6 / LAYERS) ** 0.5)
    net = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))
    batch = torch.randn(4, width), torch.randn(4, width)
    size = sum(p.numel() * p.element_size() for p in net.parameters())
    run_overfit(nn.Linear(2, 1), (torch.randn(2, 2), torch.randn(2, 1)), F.mse_loss, max_steps=3)  # all imports
    lr = 1e-5 if name == "failing" else 1e-4
    with Peak() as peak:
        if name == "bare":
            optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
            for _ in range(steps):
                optimizer.zero_grad()
                F.mse_loss(net(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        else:
            limit = 1e-9 if name == "failing" else {"below": 0.999, "relative": True}
            result = run_overfit(
                net,
                batch,
                F.mse_loss,
                optimizer=lambda p: torch.optim.AdamW(p, lr=lr),
                objective=limit,
                max_steps=steps,
                diagnose=name != "run",
                diagnose_seconds=120,
            )
            assert result.passed == (name != "failing"), result.failure_text()
    return peak.bytes, size


def main() -> int:
    """Every side in a process of its own; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, nargs="+", default=[50, 200], help="millions")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--side", choices=PROMISED, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(*side(options.side, options.parameters[0], options.steps))
        return 0
    broken = 0
    print("parameters       side      peak MiB   over bare, in parameters   promised")
    for millions in options.parameters:
        bare = 0
        for name, most in PROMISED.items():
            command = [sys.executable, __file__, "--side", name, "--parameters", str(millions)]
            done = subprocess.run([*command, "--steps", str(options.steps)], capture_output=True, text=True, check=True)
            peak, size = map(int, done.stdout.split())
            bare = peak if name == "bare" else bare
            more = (peak - bare) / size
            broken += more > most and name != "bare"
            print(f"{millions:6g} million   {name:8}  {peak / MIB:8.0f}   {more:24.2f}   {most:8g}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
