"""What a run costs over a hand-written loop that calls ``.item()`` each step: paired, in one process, per step length.

    python benchmarks/overhead.py [--pairs 9] [--steps 200] [--device cpu]

Both sides train the same model on the same batch with the same optimizer for the same number of steps. Ours is the
whole call of ``run_overfit`` with every default criterion on: snapshot, probes, fingerprints, judging and restoration
included. The sides take turns, in alternating order; the figure is the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit

Build = Callable[[], tuple[nn.Module, Any]]


def mlp() -> tuple[nn.Module, Any]:
    """About a third of a millisecond a step: nothing but overhead, ours and torch's."""
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    return net, (torch.randn(16, 32), torch.randint(0, 10, (16,)))


def wide_mlp() -> tuple[nn.Module, Any]:
    """About a millisecond."""
    net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    return net, (torch.randn(128, 256), torch.randint(0, 10, (128,)))


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


def our_run(net: nn.Module, batch: tuple[Tensor, Tensor], steps: int) -> float:
    """Seconds of the whole call, for exactly as many steps: the limit cannot be met."""
    started = time.perf_counter()
    result = run_overfit(
        net,
        batch,
        F.cross_entropy,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0),
        objective=1e-30,
        max_steps=steps,
    )
    seconds = time.perf_counter() - started
    assert result.record.steps == steps
    return seconds


def measure(build: Build, steps: int, pairs: int, device: str) -> tuple[float, list[float]]:
    """Milliseconds of a bare step, and the ratio of every pair."""
    torch.manual_seed(0)
    net, batch = build()
    net.to(device)
    batch = tuple(tensor.to(device) for tensor in batch)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    ratios, bare = [], []
    for pair in range(pairs + 1):
        seconds = {}
        order: list[Callable[..., float]] = [bare_loop, our_run]
        for side in order if pair % 2 else reversed(order):
            net.load_state_dict(start)
            seconds[side] = side(net, batch, steps)
        if pair:  # the first pair warms caches up
            ratios.append(seconds[our_run] / seconds[bare_loop])
            bare.append(1000 * seconds[bare_loop] / steps)
    return statistics.median(bare), ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.steps} steps, {options.pairs} pairs, {options.device}, torch {torch.__version__}, one thread")
    print("model        ms a step   ratio   (smallest .. largest)")
    for name, build in MODELS.items():
        step, ratios = measure(build, options.steps, options.pairs, options.device)
        print(f"{name:12} {step:9.2f}   {statistics.median(ratios):5.3f}   ({min(ratios):.3f} .. {max(ratios):.3f})")


if __name__ == "__main__":
    main()
