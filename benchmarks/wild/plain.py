"""What a plain loop reaches, without the plugin.

    python -m benchmarks.wild.plain [NAME ...] [--seeds 3] [--curve] [--trace]

A line for each program: the mean of the last 5 losses for every seed, the limit, and the seconds of one run. A program
that does not come below its limit in all of them is no healthy program: the command exits 1, and so it does where a
program declares unused what LEARNS. IDLE are parameters that never moved and that the program does not declare.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from benchmarks.wild.case import Program
from benchmarks.wild.registry import collect

LAST = 5  # losses whose mean counts


@dataclass(frozen=True)
class Plain:
    """The losses of one run, and how long it took."""

    losses: tuple[float, ...]
    seconds: float
    idle: tuple[str, ...]  # trainable parameters that are what they were
    learning: tuple[str, ...]  # those that a gradient has reached

    @property
    def reached(self) -> float:
        """The mean of the last 5 losses."""
        last = self.losses[-LAST:]
        return sum(last) / len(last)


def train(program: Program, seed: int = 0) -> Plain:
    """Trains a program as its user would: a loop of forward pass, backward pass and update."""
    torch.manual_seed(seed)
    model, batch = program.model(), program.batch()
    model.train()
    before = {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}
    optimizer = program.optimizer([each for each in model.parameters() if each.requires_grad], program.lr)
    losses = []
    learning: set[str] = set()
    started = time.perf_counter()
    for _ in range(program.steps):
        optimizer.zero_grad()
        loss = program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
        if program.given.get("unused"):
            learning |= {name for name, each in model.named_parameters() if each.grad is not None and each.grad.any()}
    seconds = time.perf_counter() - started
    idle = [
        name
        for name, each in model.named_parameters()
        if name in before and each.numel() and torch.equal(each, before[name])
    ]
    return Plain(tuple(losses), seconds, tuple(idle), tuple(sorted(learning)))


def undeclared(program: Program, idle: tuple[str, ...]) -> list[str]:
    """The parameters that never moved, without those of which the program says so."""
    globs = [*program.given.get("unused", ()), *program.given.get("frozen", ())]
    return [name for name in idle if not _matches(name, globs)]


def wrongly_declared(program: Program, learning: tuple[str, ...]) -> list[str]:
    """The parameters that a gradient has reached, and that the program calls unused."""
    return [name for name in learning if _matches(name, program.given.get("unused", ()))]


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def reached(program: Program, seeds: int, curve: bool) -> tuple[str, bool]:
    """What the program reaches with each seed, in words, and whether it is healthy: below its limit every time."""
    runs = [train(program, seed) for seed in range(seeds)]
    healthy = all(run.reached < program.limit for run in runs)  # NaN is not
    values = "  ".join(f"{run.reached:9.3g}" for run in runs)
    words = (
        f"{values}  limit {program.limit:<8g} from {runs[0].losses[0]:8.3g}  {min(run.seconds for run in runs):5.1f} s"
    )
    if curve:
        words += "  " + " ".join(f"{loss:.3g}" for loss in runs[0].losses[:: max(1, program.steps // 10)])
    idle = undeclared(program, runs[0].idle)
    if idle:
        words += f"  {len(idle)} IDLE: {' '.join(idle[:6])}"
    wrong = wrongly_declared(program, runs[0].learning)
    if wrong:
        words += f"  {len(wrong)} LEARNS: {' '.join(wrong[:6])}"
    return f"{words}{'' if healthy else '  NOT REACHED'}", healthy and not wrong


def main(arguments: list[str] | None = None) -> int:
    """Trains every program that is asked for; 1 where one does not reach its limit or does not run."""
    parser = argparse.ArgumentParser(prog="benchmarks.wild.plain", description="What a plain loop reaches.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a library, or the beginning of library/class")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs of each (default 3)")
    parser.add_argument("--curve", action="store_true", help="show eleven losses of the first run")
    parser.add_argument("--trace", action="store_true", help="show where a program broke")
    given = parser.parse_args(arguments)
    collected = collect(given.names)
    bad = 0
    for program in collected.programs:
        try:
            words, healthy = reached(program, given.seeds, given.curve)
        except Exception as error:  # one program that breaks must not hide what the others reach
            if given.trace:
                traceback.print_exc()
            words, healthy = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}  BROKEN", False
        bad += not healthy
        print(f"{program.name:66s} {words}", flush=True)
    for name, why in collected.missing.items():
        print(f"{name:66s} not installed: {why}")
    print(f"{len(collected.programs)} programs, {bad} that do not reach their limit")
    return 1 if bad else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.exit(main())
