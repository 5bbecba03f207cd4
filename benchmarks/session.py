"""Many small overfit tests in one session: what each costs beside its loop, whether memory stays, what workers bring.

    python benchmarks/session.py [--tests 200]

Sessions of pytest in processes of their own: the loops by hand, and the same with the plugin, alone and with ``-n 2``.
Promised are at most 30 ms a test over the loop, no more memory after the last test than after the twentieth, and at
most 0.6 of the seconds with two workers. Where a machine is busy, its processor's seconds say more than the clock.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEST = """
import os, resource, torch, pytest
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)

def parts(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    return net, (torch.randn(8, 16), torch.arange(8) % 4)

@pytest.fixture(autouse=True)
def memory(request):
    yield
    with open(f"/proc/{os.getpid()}/statm") as file:
        pages = int(file.read().split()[1])
    with open("memory.txt", "a") as file:
        file.write(f"{pages * resource.getpagesize() // 1024}\\n")
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


def session(body: str, *options: str) -> tuple[float, float, list[int]]:
    """Seconds on the wall and of the processor, and the resident memory after each test in KiB."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_many.py").write_text(TEST + body, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(done.stdout.decode()[-2000:])
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return seconds, processor, [int(line) for line in Path(folder, "memory.txt").read_text().split()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--options", nargs="*", default=[], help="of pytest, such as -o overfit_diagnose=false")
    options = parser.parse_args()
    sides = {
        "by hand": session(HAND % options.tests),
        "ours": session(OURS % options.tests, *options.options),
        "ours, -n 2": session(OURS % options.tests, "-n", "2", *options.options),
    }
    print(f"{options.tests} tests, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("session       wall s   processor s   MiB after test 20   after the last")
    for name, (wall, processor, memory) in sides.items():
        at = min(19, len(memory) - 1)
        print(f"{name:12} {wall:7.1f}   {processor:11.1f}   {memory[at] / 1024:17.0f}   {memory[-1] / 1024:14.0f}")
    hand, ours, both = sides.values()
    each = [1000 * (ours[clock] - hand[clock]) / options.tests for clock in (0, 1)]
    print(f"a test over its loop: {each[0]:.0f} ms on the wall, {each[1]:.0f} ms of the processor")
    print(f"two workers: {both[0] / ours[0]:.2f} of the seconds on the wall")
    return 0 if min(each) <= 30 and ours[2][-1] <= 1.02 * ours[2][min(19, len(ours[2]) - 1)] else 1


if __name__ == "__main__":
    sys.exit(main())
