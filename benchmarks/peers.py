"""What the same steps cost with the peers: every side on the same model, batch and optimizer, in one process.

    python -m pip install --no-deps -r constraints/peers.txt    (optional: a peer that is missing is a row)
    python benchmarks/peers.py [--pairs 7] [--steps 200] [--models mlp transformer cnn] [--clock cpu]

A side is the whole call, as its own documentation shows it, with a limit that cannot be met, so that none stops early;
ours is met by the last step, as a missed one is explained by runs of its own: `overhead.py` has what those cost.
The sides take turns in rotating and alternating order; a ratio is a side over the bare loop of the same round. An
untimed round comes first: it warms caches up and counts optimizer steps and forward passes of the whole model.
On a busy machine ``--clock cpu`` takes the processor time of this process instead of the wall clock, and the column
*fastest* has the fastest call of a side over the fastest bare loop.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import importlib.util
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from overhead import MODELS, bare_loop, our_run
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

Batch = tuple[Tensor, Tensor]
Run = Callable[[nn.Module, Batch, int], float]

UNREACHABLE = 1e-30


def adamw(parameters: Any) -> torch.optim.Optimizer:
    """The optimizer of ``overhead.py``."""
    return torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)


def pytest_torch_run(net: nn.Module, batch: Batch, steps: int) -> float:
    """Seconds of ``assert_overfits_one_batch``, up to the AssertionError that it must end in."""
    from pytest_torch import assert_overfits_one_batch

    inputs, target = batch
    started = time.perf_counter()
    missed = False
    try:
        assert_overfits_one_batch(
            net,
            inputs,
            lambda output: F.cross_entropy(output, target),
            steps=steps,
            target_loss=UNREACHABLE,
            optimizer=adamw,
        )
    except AssertionError:
        missed = True
    seconds = time.perf_counter() - started
    assert missed
    return seconds


def torchtest2_run(net: nn.Module, batch: Batch, steps: int) -> float:
    """Seconds of ``check_model``."""
    from torchtest2 import check_model

    inputs, target = batch
    started = time.perf_counter()
    report = check_model(
        net,
        inputs,
        target,
        loss_fn=F.cross_entropy,
        optimizer=adamw(net.parameters()),
        overfit_steps=steps,
        overfit_target=UNREACHABLE,
    )
    seconds = time.perf_counter() - started
    assert len(report["overfit_batch"].details["losses"]) == steps
    return seconds


def lightning_run(net: nn.Module, batch: Batch, steps: int) -> float:
    """Seconds of building a ``Trainer(overfit_batches=1)`` and of its ``fit``: an epoch a step, as it has no other."""
    from lightning.pytorch import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # here, as its import sets another level

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            inputs, target = batch
            return F.cross_entropy(self.net(inputs), target)

        def configure_optimizers(self) -> Any:
            return adamw(self.parameters())

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trainer = Trainer(
            overfit_batches=1,
            max_steps=steps,
            max_epochs=-1,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(Module(), DataLoader(TensorDataset(*batch), batch_size=len(batch[0])))
        seconds = time.perf_counter() - started
        assert not os.listdir(folder)  # noqa: PTH208
    assert trainer.global_step == steps
    return seconds


@dataclass(frozen=True)
class Side:
    """One row: its call, the module and the distribution that it needs, and what the call checks."""

    name: str
    run: Run
    checks: str = "nothing"
    module: str = "torch"
    distribution: str = "torch"

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        return importlib.metadata.version(self.distribution) if self.installed else "not installed"


SIDES = (
    Side("bare loop", bare_loop),
    Side(
        "pytest-overfit",
        our_run,
        "the objective against its limit at the end, its trend, finite values, gradients of every parameter, "
        "a constant batch, supervision; restores model, optimizer and generators",
        "pytest_overfit",
        "pytest-overfit",
    ),
    Side(
        "pytest-torch",
        pytest_torch_run,
        "the loss against its target, a finite loss; trains a deep copy, with a forward pass more at the end",
        "pytest_torch",
        "pytest-torch",
    ),
    Side(
        "torchtest2",
        torchtest2_run,
        "all checks of check_model that need no setting: outputs, determinism, loss, optimizer coverage, gradients, "
        "an update (a step of its own), input and batch dependence, overfitting with finite gradients; restores",
        "torchtest2",
        "torchtest2",
    ),
    Side(
        "Lightning",
        lightning_run,
        "nothing: trains, and the user looks at the loss; collates the batch anew each step",
        "lightning",
        "lightning",
    ),
)


@contextlib.contextmanager
def counted(net: nn.Module) -> Iterator[dict[str, int]]:
    """Counts optimizer steps and forward passes, those of deep copies too."""
    counts = {"steps": 0, "forwards": 0}

    def stepped(*_: Any) -> None:
        counts["steps"] += 1

    def passed(*_: Any) -> None:
        counts["forwards"] += 1

    handles = [register_optimizer_step_post_hook(stepped), net.register_forward_hook(passed)]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def measure(
    name: str, sides: list[Side], steps: int, pairs: int, clock: str
) -> tuple[dict[str, dict[str, int]], dict[str, list[float]]]:
    """Counts of one untimed run per side, and the seconds of every timed one, by the name of the side."""
    torch.manual_seed(0)
    net, batch = MODELS[name]()
    start = {key: value.clone() for key, value in net.state_dict().items()}
    counts: dict[str, dict[str, int]] = {}
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for side in sides:
        net.load_state_dict(start)
        with counted(net) as counts[side.name]:
            side.run(net, batch, steps)
    for pair in range(pairs):
        shift = pair % len(sides)
        order = sides[shift:] + sides[:shift]
        for side in order if pair % 2 else reversed(order):
            net.load_state_dict(start)
            net.zero_grad()
            gc.collect()  # one side's cycles are not to be collected on another's time
            before = time.process_time()
            wall = side.run(net, batch, steps)
            seconds[side.name].append(time.process_time() - before if clock == "cpu" else wall)
    return counts, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["mlp", "transformer", "cnn"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    installed = [side for side in SIDES if side.installed]
    print(
        f"{options.steps} steps, {options.pairs} pairs, cpu, torch {torch.__version__}, one thread, "
        f"{options.clock} clock, load {os.getloadavg()[0]:.1f}"
    )
    print(
        "model        side            ms a step   ratio   (smallest .. largest)   fastest   optimizer steps   "
        "forward passes"
    )
    for model in options.models:
        counts, seconds = measure(model, installed, options.steps, options.pairs, options.clock)
        for side in SIDES:
            if not side.installed:
                print(f"{model:12} {side.name:15} not installed")
                continue
            ratios = [ours / bare for ours, bare in zip(seconds[side.name], seconds[SIDES[0].name], strict=True)]
            step = 1000 * statistics.median(seconds[side.name]) / options.steps
            spread = f"({min(ratios):.3f} .. {max(ratios):.3f})"
            fastest = min(seconds[side.name]) / min(seconds[SIDES[0].name])
            count = counts[side.name]
            print(
                f"{model:12} {side.name:15} {step:9.2f}   {statistics.median(ratios):5.3f}   {spread:23} "
                f"{fastest:7.3f}   {count['steps']:15}   {count['forwards']:14}",
                flush=True,
            )
    print("\nwhat each call checks")
    for side in SIDES[1:]:
        print(f"{side.name} ({side.version}): {side.checks}")


if __name__ == "__main__":
    main()
