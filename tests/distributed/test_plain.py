"""What ranks tell each other is plain data: it comes back as it was, and a pickle is refused."""

from __future__ import annotations

import io
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pytest_overfit
from pytest_overfit.errors import OverfitError
from pytest_overfit.run.ranks.messages import packed, tensors_of, unpacked, with_tensors
from pytest_overfit.run.record import NonFinite


@pytest.mark.parametrize("value", [None, True, "max_seconds", 3, ["a"], NonFinite(3, "loss term é", None)])
def test_small_values(value: object) -> None:
    """Decisions, and the place of the first non-finite number."""
    assert unpacked(packed(value)) == value


def test_objects_are_refused() -> None:
    """Nothing else is sent."""
    with pytest.raises(TypeError):
        packed(object())


@dataclass
class Graph:
    """A batch of a type of the user's own."""

    x: Tensor
    name: str


def test_the_tensors_of_a_batch() -> None:
    """The first rank's tensors in a batch of this rank's types; flags and what is no tensor stay."""
    first = {"a": torch.arange(3.0, requires_grad=True), "b": [Graph(torch.ones(2, dtype=torch.bfloat16), "first")]}
    own: dict[str, Any] = {
        "a": torch.zeros(3, requires_grad=True),
        "b": [Graph(torch.zeros(2, dtype=torch.bfloat16), "own")],
    }
    told: Any = with_tensors(own, tensors_of(first))
    assert told["a"].tolist() == [0, 1, 2]
    assert told["a"].requires_grad
    assert told["b"][0].x.tolist() == [1, 1]
    assert told["b"][0].name == "own"
    assert own["a"].tolist() == [0, 0, 0]


def test_other_tensors() -> None:
    """Batches of two structures cannot be one."""
    with pytest.raises(OverfitError, match="other tensors: b, c"):
        with_tensors({"a": torch.ones(1), "b": torch.ones(1)}, tensors_of({"a": torch.ones(1), "c": torch.ones(1)}))


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('ran')",)


def test_a_pickle_cannot_run() -> None:
    """What another rank sends is read as tensors alone."""
    buffer = io.BytesIO()
    torch.save({"batch": Bomb()}, buffer)
    with pytest.raises(pickle.UnpicklingError):
        with_tensors(torch.ones(1), buffer.getvalue())


OF_THIS_RUN = {  # how often; neither reads a file that was given, nor what another rank sends
    "twins/elsewhere.py": 3,  # through a pipe between a process and its own fork
    "twins/resume.py": 1,  # a checkpoint in a folder of the run, written moments before
}


def test_no_pickle_is_left() -> None:
    """No collective of objects in the whole package, and no loading that could run code but of a run's own."""
    package = Path(pytest_overfit.__file__).parent
    collectives = r"_object_list\(|(broadcast|gather|scatter)_object\("
    words = re.compile(rf"weights_only=False|{collectives}|import pickle\b|pickle\.loads?\(|Unpickler\(")
    sources = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = {name: words.findall(source) for name, source in sources.items() if words.search(source)}
    assert {name: len(uses) for name, uses in found.items()} == OF_THIS_RUN
    assert words.search("dist.broadcast_object_list(held)")
