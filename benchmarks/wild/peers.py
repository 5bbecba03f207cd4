"""What other tools say of the same programs: the cases of a run of ``benchmarks.wild``, handed to each of them.

    python -m pip install --no-deps -r constraints/peers.txt    (beside the libraries of requirements.txt)
    python -m benchmarks.wild --part held-out --sample 210 --healthy 106 --seed 1 --write cases.json
    python -m benchmarks.wild.peers cases.json [--jobs 2]

Each tool gets what its interface takes: pytest-torch the model, the batch, the loss and a function that makes the
optimizer, torchtest2 an optimizer as well; neither takes a train step, so a mistake in one is not handed over. Programs
whose ``unused`` parameters an honest user would declare are declared to both. Red is a failed assertion or a check that
FAILs; an exception of another kind is counted apart. A bare loop sees what breaks, by the definition of the word, as
Lightning's ``overfit_batches=1`` does, which trains and leaves the loss to the user.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.measure import Row, row_from
from benchmarks.wild.operators import OPERATORS
from benchmarks.wild.operators.operator import Setup, broken, healthy
from benchmarks.wild.operators.trace import trace_of
from benchmarks.wild.pool import run_all

Word = str  # "red", "green", or what was raised


class WholeLoss(nn.Module):
    """Model and loss as one module, for tools that call ``model(batch)``."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.model = setup.model
        self._loss = setup.loss

    def forward(self, batch: Any) -> Tensor:
        return self._loss(self.model, batch)


class Outputs(nn.Module):
    """Stands in for the model where its outputs are there already."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.outputs


def of_pytest_torch(program: Program, setup: Setup) -> Word:
    """``assert_overfits_one_batch``, and its two assertions on gradients."""
    from pytest_torch.training import assert_all_params_receive_grad, assert_gradients_finite, assert_overfits_one_batch

    unused = [f"model.{glob}" for glob in setup.given.get("unused", ())]
    net, limits = WholeLoss(setup), {"steps": program.steps, "target_loss": program.limit}
    net.train()
    try:
        assert_gradients_finite(net, (setup.batch,), _same)
        assert_all_params_receive_grad(net, (setup.batch,), _same, ignore=unused, allow_zero=True)
        assert_overfits_one_batch(
            net, (setup.batch,), _same, **limits, optimizer=lambda p: program.optimizer(p, program.lr)
        )
    except AssertionError:
        return "red"
    return "green"


def of_torchtest2(program: Program, setup: Setup) -> Word:
    """``check_model`` with all checks that need no setting."""
    from torchtest2 import Status, check_model

    own = setup.optimizer or program.optimizer([p for p in setup.model.parameters() if p.requires_grad], program.lr)
    inputs, targets, how = _parted(setup)
    report = check_model(
        setup.model,
        inputs,
        targets,
        **how,
        optimizer=own,
        overfit_steps=program.steps,
        overfit_target=program.limit,
        skip=("gradient_flow",) if setup.given.get("unused") else (),
    )
    return "red" if any(result.status == Status.FAIL for result in report.results) else "green"


def _same(output: Tensor) -> Tensor:
    return output


def _parted(setup: Setup) -> tuple[Any, Any, dict[str, Any]]:
    """Inputs, targets and loss one by one where the loss calls the model once, with the inputs; else all in one."""
    batch = setup.batch

    def of_outputs(outputs: Any, targets: Any) -> Tensor:
        return setup.loss(Outputs(outputs), (batch[0], targets))

    if isinstance(batch, tuple) and len(batch) == 2 and all(isinstance(each, Tensor) for each in batch):
        kept = torch.get_rng_state()
        whole = setup.loss(setup.model, batch)
        torch.set_rng_state(kept)
        if torch.equal(of_outputs(setup.model(batch[0]), batch[1]), whole):
            return batch[0], batch[1], {"loss_fn": of_outputs}
    whole_loss: Callable[..., Tensor] = lambda model, *_: setup.loss(model, batch)  # noqa: E731
    return batch, None, {"loss_fn": _same, "forward_fn": whole_loss, "eval_forward_fn": whole_loss, "batch_dim": None}


TOOLS: dict[str, Callable[[Program, Setup], Word]] = {"pytest-torch": of_pytest_torch, "torchtest2": of_torchtest2}


def asked(row: Row, program: Program, seed: int, _: Callable[[object], None]) -> dict[str, Word]:
    """What each tool says of one case."""
    said = {}
    for name, tool in TOOLS.items():
        setup = healthy(program, seed)
        if row.operator:
            (mistake,) = (each for each in OPERATORS if each.id == row.operator)
            made = broken(program, mistake, trace_of(program, seed), seed)
            assert made is not None
            setup = made[0]
        try:
            said[name] = tool(program, setup)
        except Exception as error:  # of the tool, or of a program that its interface does not fit
            said[name] = f"raised {type(error).__name__}"
    return said


def shares(rows: Sequence[Row], words: Sequence[Word]) -> tuple[str, ...]:
    """Red of those that break, of the silent ones and of the healthy ones, and how often the tool raised."""
    cells = []
    for effect in ("breaks", "silent", "healthy"):
        here = [word for row, word in zip(rows, words, strict=True) if row.effect == effect]
        cells.append(f"{here.count('red')}/{len(here)}")
    return (*cells, str(sum(word.startswith("raised") for word in words)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Hands every case to every tool, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, help="what --write of benchmarks.wild has written")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    from benchmarks.wild.registry import collect

    content = json.loads(options.cases.read_text(encoding="utf-8"))
    programs = {program.name: program for program in collect().programs}
    rows = [row for row in map(row_from, content["rows"]) if row.program in programs]
    works = [functools.partial(asked, row, programs[row.program], content["seed"]) for row in rows]
    said = [each.answer or dict.fromkeys(TOOLS, f"raised {each.why}") for each in run_all(works, options.jobs, 600)]
    ours = ["raised" if row.raised else "red" if row.detected else "green" for row in rows]
    print("| tool | breaking | silent | healthy | raised |\n|---|---|---|---|---|")
    for name in TOOLS:
        print(f"| {name} | {' | '.join(shares(rows, [each[name] for each in said]))} |")
    print(f"| pytest-overfit | {' | '.join(shares(rows, ours))} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
