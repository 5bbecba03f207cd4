"""What a run costs over a hand-written loop that calls ``.item()`` each step: paired, in one process, per step length.

    python benchmarks/overhead.py [--pairs 9] [--steps 200] [--device cpu] [--clock cpu]

All sides train the same model on the same batch with the same optimizer for the same number of steps:

- loop: a step of ours over one by hand, with every default criterion on, from the second update to the last (the first
  step is looked at closely: a question).
- questions: the seconds of a run that passes beside its loop: snapshot, probes, diagnosis, judging and restoration.
- trials: the seconds that a run takes more that misses its limit, to say why: those are runs of their own.

The sides take turns, in alternating order; figures are medians of the pairs. For a busy machine there are
``--clock cpu``, which takes the processor time of this process, and the column *undisturbed*: of every step of the two
loops the fastest of all pairs, added up. It has each look that ours takes, as looks come at the same steps in each run.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from pytest_overfit import run_overfit

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Build = Callable[[], tuple[nn.Module, Any]]


def mlp() -> tuple[nn.Module, Any]:
    """About 0.3 milliseconds a step: nothing but overhead, ours and torch's."""
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return net, (torch.randn(16, 32), torch.randint(0, 10, (16,)))


def wide_mlp() -> tuple[nn.Module, Any]:
    """About 1.5 milliseconds."""
    net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    return net, (torch.randn(144, 256), torch.randint(0, 10, (144,)))


def transformer() -> tuple[nn.Module, Any]:
    """About five milliseconds."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    net = nn.Sequential(encoder, nn.Flatten(), nn.Linear(64 * 24, 10))
    return net, (torch.randn(18, 24, 64), torch.randint(0, 10, (18,)))


def cnn() -> tuple[nn.Module, Any]:
    """Tens of milliseconds."""
    channels = (3, 32, 64, 64)
    blocks: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * 8 * 8, 10))
    return net, (torch.randn(16, 3, 64, 64), torch.randint(0, 10, (16,)))


MODELS: dict[str, Build] = {"mlp": mlp, "wide mlp": wide_mlp, "transformer": transformer, "cnn": cnn}


def bare_loop(net: nn.Module, batch: tuple[Tensor, Tensor], steps: int) -> float:
    """Seconds of the loop that people write."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.0)
    losses = []
    inputs, target = batch
    started = time.perf_counter()
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(inputs), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return time.perf_counter() - started


def our_run(net: nn.Module, batch: tuple[Tensor, Tensor], steps: int, *, passes: bool = True) -> float:
    """Seconds of the whole call, for exactly as many steps: the limit has held long enough then, or cannot be met."""
    started = time.perf_counter()
    result = run_overfit(
        net,
        batch,
        F.cross_entropy,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0),
        objective={"below": 1 - 1e-5, "relative": True} if passes else 1e-30,
        hold_steps=steps - 1 if passes else 1,
        max_steps=steps,
    )
    seconds = time.perf_counter() - started
    assert (result.record.steps, result.passed) == (steps, passes)
    return seconds


def failing_run(net: nn.Module, batch: tuple[Tensor, Tensor], steps: int) -> float:
    """The same of a run that says why it missed its limit."""
    return our_run(net, batch, steps, passes=False)


@contextlib.contextmanager
def stamped(clock: Callable[[], float]) -> Iterator[list[float]]:
    """The times at which optimizers have stepped in the block: the first ones are those of the loop."""
    times: list[float] = []
    handle = register_optimizer_step_post_hook(lambda *_: times.append(clock()))
    try:
        yield times
    finally:
        handle.remove()


def measure(
    build: Build, steps: int, pairs: int, device: str, clock: Callable[[], float]
) -> tuple[list[list[float]], float, float]:
    """Of every pair: milliseconds of a bare step, ratio of the loop, milliseconds of questions and of trials.

    Beside them milliseconds of a bare step and the ratio where every step is the fastest of all pairs.
    """
    torch.manual_seed(0)
    net, batch = build()
    net.to(device)
    batch = tuple(tensor.to(device) for tensor in batch)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    found = []
    every: dict[Any, list[list[float]]] = {bare_loop: [], our_run: []}
    sides = (bare_loop, our_run, failing_run)
    for pair in range(pairs + 1):
        whole, loop = {}, {}
        for side in sides if pair % 2 else reversed(sides):
            net.load_state_dict(start)
            gc.collect()  # one side's cycles are not to be collected on another's time
            with stamped(clock) as times:
                before = clock()
                side(net, batch, steps)
                whole[side] = 1000 * (clock() - before)
            loop[side] = 1000 * (times[steps - 1] - times[1]) / (steps - 2)
            if pair and side in every:
                every[side].append([1000 * (b - a) for a, b in itertools.pairwise(times[1:steps])])
        if pair:  # the first one warms caches up
            questions = whole[our_run] - steps * loop[our_run]
            ratio = loop[our_run] / loop[bare_loop]
            found.append([loop[bare_loop], ratio, questions, whole[failing_run] - whole[our_run]])
    fastest = {side: statistics.fmean(map(min, zip(*runs, strict=True))) for side, runs in every.items()}
    return found, fastest[bare_loop], fastest[our_run] / fastest[bare_loop]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    told = (
        f"{options.device}, torch {torch.__version__}, one thread, {options.clock} clock, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{options.steps} steps, {options.pairs} pairs, {told}")
    print("model        ms a step    loop   (smallest .. largest)   questions ms   trials ms   undisturbed: ms   loop")
    for name in options.models:
        pairs, fastest, undisturbed = measure(
            MODELS[name], options.steps, options.pairs, options.device, CLOCKS[options.clock]
        )
        step, ratio, questions, trials = (statistics.median(column) for column in zip(*pairs, strict=True))
        least, most = min(pair[1] for pair in pairs), max(pair[1] for pair in pairs)
        spread = f"({least:.3f} .. {most:.3f})"
        print(
            f"{name:12} {step:9.2f}   {ratio:5.3f}   {spread:23} {questions:12.0f}   {trials:9.0f}   "
            f"{fastest:15.2f}   {undisturbed:5.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
