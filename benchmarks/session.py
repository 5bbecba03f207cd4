"""Many small overfit tests in one session: what each costs beside its loop, whether memory stays, what workers bring.

    python benchmarks/session.py [--tests 200]

Sessions of pytest in processes of their own: the loops by hand, and the same with the plugin, alone and with ``-n 2``.
Promised are at most 30 ms a test over the loop, no more memory after the last test than after the twentieth, and at
most 0.6 of the seconds with two workers. What a test costs is the median of its processor's time, from test 20 on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEST = """
import os, resource, time, torch, pytest
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)

def parts(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    return net, (torch.randn(8, 16), torch.arange(8) % 4)

@pytest.fixture(autouse=True)
def memory(request):
    started = time.process_time()
    yield
    seconds = time.process_time() - started
    with open(f"/proc/{os.getpid()}/statm") as file:
        pages = int(file.read().split()[1])
    with open("told.txt", "a") as file:
        file.write(f"{pages * resource.getpagesize() / 2**20} {1000 * seconds}\\n")
"""
HAND = """
@pytest.mark.parametrize("seed", range(%d))
def test_it(seed):
    net, (x, y) = parts(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05
"""
OURS = """
@pytest.mark.parametrize("seed", range(%d))
def test_it(overfit, seed):
    net, batch = parts(seed)
    overfit(net, batch, F.cross_entropy, lr=1e-2, objective=0.05, max_steps=300)
"""


def session(body: str, *options: str) -> tuple[float, list[float], list[float]]:
    """Seconds on the wall; of each test the MiB that are resident after it, and its milliseconds of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_many.py").write_text(TEST + body, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit((done.stdout + done.stderr).decode()[-2000:])
        told = [tuple(map(float, line.split())) for line in Path(folder, "told.txt").read_text().splitlines()]
        return seconds, [memory for memory, _ in told], [spent for _, spent in told]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument(
        "--options",
        nargs=argparse.REMAINDER,
        default=[],
        help="the rest is pytest's: --overfit-set diagnose=false",
    )
    options = parser.parse_args()
    sides = {
        "by hand": session(HAND % options.tests),
        "ours": session(OURS % options.tests, *options.options),
        "ours, -n 2": session(OURS % options.tests, "-n", "2", *options.options),
    }
    print(f"{options.tests} tests, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("session       wall s   ms a test   MiB after test 20   after the last")
    warm = min(20, options.tests // 2)
    for name, (wall, memory, spent) in sides.items():
        each = statistics.median(spent[warm:])
        print(f"{name:12} {wall:7.1f}   {each:9.1f}   {memory[warm - 1]:17.0f}   {memory[-1]:14.0f}")
    hand, ours, both = sides.values()
    over = statistics.median(ours[2][warm:]) - statistics.median(hand[2][warm:])
    print(f"a test over its loop: {over:.0f} ms; two workers: {both[0] / ours[0]:.2f} of the seconds on the wall")
    return 0 if over <= 30 and ours[1][-1] <= 1.02 * ours[1][warm - 1] and both[0] <= 0.6 * ours[0] else 1


if __name__ == "__main__":
    sys.exit(main())
