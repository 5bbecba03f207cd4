"""Many small overfit tests in one session: what each costs beside its loop, whether memory stays, what workers bring.

    python benchmarks/session.py [--tests 200]

Sessions of pytest in processes of their own: the loops by hand, and the same with the plugin, alone and with ``-n 2``.
Promised are at most 30 ms a test over the loop, no more memory after the last test than after the twentieth, and at
most 0.6 of the seconds with two workers. What a test costs is the median of its processor's time, from test 20 on.

What passes before the first test is the interpreter, pytest and the import of torch, of every worker anew: workers
share the tests alone. The loops by hand with two workers say what of the 0.6 this machine leaves.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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
    began, started = time.time(), time.process_time()
    yield
    seconds = time.process_time() - started
    with open(f"/proc/{os.getpid()}/statm") as file:
        pages = int(file.read().split()[1])
    with open("told.txt", "a") as file:
        file.write(f"{pages * resource.getpagesize() / 2**20} {1000 * seconds} {began} {time.time()}\\n")
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


@dataclass(frozen=True)
class Session:
    """Seconds on the wall: all, before the first test, and of the tests; of each test MiB after it, and its ms."""

    wall: float
    start: float
    tests: float
    memory: list[float]
    spent: list[float]


def session(body: str, *options: str) -> Session:
    """One session in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_many.py").write_text(TEST + body, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
        before = time.time()
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False
        )
        wall = time.time() - before
        if done.returncode:
            raise SystemExit((done.stdout + done.stderr).decode()[-2000:])
        told = [tuple(map(float, line.split())) for line in Path(folder, "told.txt").read_text().splitlines()]
        memory, spent, began, ended = (list(column) for column in zip(*told, strict=True))
        return Session(wall, min(began) - before, max(ended) - min(began), memory, spent)


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
    by_hand, with_it = HAND % options.tests, OURS % options.tests
    hand, ours = session(by_hand), session(with_it, *options.options)
    hands, both = session(by_hand, "-n", "2"), session(with_it, "-n", "2", *options.options)
    print(f"{options.tests} tests, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("session          wall s   before tests   of tests   ms a test   MiB after test 20   after the last")
    warm = min(20, options.tests // 2)
    for name, one in {"by hand": hand, "ours": ours, "by hand, -n 2": hands, "ours, -n 2": both}.items():
        each = statistics.median(one.spent[warm:])
        print(
            f"{name:13} {one.wall:9.1f}   {one.start:12.1f}   {one.tests:8.1f}   {each:9.1f}   "
            f"{one.memory[warm - 1]:17.0f}   {one.memory[-1]:14.0f}"
        )
    over = statistics.median(ours.spent[warm:]) - statistics.median(hand.spent[warm:])
    print(
        f"a test over its loop: {over:.0f} ms; two workers: {both.wall / ours.wall:.2f} of the seconds on the wall, "
        f"{both.tests / ours.tests:.2f} of those of the tests; by hand {hands.wall / hand.wall:.2f} and "
        f"{hands.tests / hand.tests:.2f}"
    )
    steady = ours.memory[-1] <= 1.02 * ours.memory[warm - 1]
    return 0 if over <= 30 and steady and both.wall <= 0.6 * ours.wall else 1


if __name__ == "__main__":
    sys.exit(main())
