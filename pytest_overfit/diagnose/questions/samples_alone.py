"""What every sample costs by itself: an objective that is the mean over some of the samples leaves out the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.questions.dependence import evaluated
from pytest_overfit.diagnose.questions.held_outputs import Held, freed
from pytest_overfit.diagnose.questions.pairing import Pairing, dead_rows
from pytest_overfit.errors.asking import Refused
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.update import into_training

MOST_SAMPLES = 64  # that are asked one by one
MOST_READ = 16  # the same where each costs a forward pass, and no slope has said of which it is worth that
SAME = 1e-3  # relative: the objective, and the mean over the samples that it reads
Unlearnt = tuple[tuple[int, ...], float, float]  # samples, what they lose by themselves, and what the others do


def measure_unlearnt(on: RunContext, samples: int | None, named: list[tuple[str, nn.Module]]) -> Unlearnt | None:
    """The samples that an objective leaves out, what they cost by themselves, and what the others do.

    A sample by itself is a batch full of its copies. Of objectives that are not, to ``SAME``, the mean over what is
    read that way nothing is said: those that compare samples, or weigh them.

    Args:
        named: the modules whose outputs the loss takes.
    """
    if samples is None or not 2 <= samples <= MOST_SAMPLES:
        return None
    batch = on.task.batch
    into_training(on.task.model)
    with contextlib.suppress(Refused), freed(named) as free:
        asked = Pairing(Held(on.seeded, free, batch), batch, samples)
        if asked.base and asked.first.keys() == dict(asked.forward(batch)[0]).keys():  # else some keep their rows
            return _left_out(asked, dead_rows(asked.base, samples))
    asked = Pairing(evaluated(on), batch, samples)
    if asked.base:
        return _left_out(asked, dead_rows(asked.base, samples))
    return _left_out(asked, None) if samples <= MOST_READ else None


def _left_out(asked: Pairing, dead: Tensor | None) -> Unlearnt | None:
    """Of samples that have no slope; None: of those that another one's place changes nothing of."""
    if dead is not None and (not bool(dead.any()) or bool(dead.all())):
        return None
    whole, alone = _objective(asked, None), torch.tensor(list(_alone(asked)), dtype=torch.float64)
    if not bool(torch.isfinite(alone).all()):
        return None
    if dead is None:
        dead = _unread(asked, whole, int(alone.argmax()))
    if not bool(dead.any()) or bool(dead.all()) or asked.is_listed(dead):
        return None
    others = float(alone[~dead].mean())
    if not abs(others - whole) <= SAME * abs(whole):
        return None
    return tuple(dead.nonzero()[:, 0].tolist()), float(alone[dead].mean()), others


def _alone(asked: Pairing) -> Iterator[float]:
    for row in range(asked.samples):
        yield _objective(asked, torch.full((asked.samples,), row))


def _unread(asked: Pairing, whole: float, hardest: int) -> Tensor:
    """Those in whose place the hardest one changes nothing."""
    dead = torch.zeros(asked.samples, dtype=torch.bool)
    for row in range(asked.samples):
        order = torch.arange(asked.samples)
        order[row] = hardest if row != hardest else (hardest + 1) % asked.samples
        dead[row] = _objective(asked, order) == whole
    return dead


def _objective(asked: Pairing, order: Tensor | None) -> float:
    """With these samples in the places of the batch, and with their outputs where those are held."""
    if order is None:
        return float(asked.forward(asked.batch)[1]["objective"].detach())
    rows = {id(t): t.detach()[order.to(t.device)] for t in asked.held.values()}
    with asked.outputs(lambda t: t[order.to(t.device)]):
        return float(asked.forward(map_tensors(lambda t: rows.get(id(t), t), asked.batch))[1]["objective"].detach())
