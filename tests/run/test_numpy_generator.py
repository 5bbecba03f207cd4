"""NumPy's global random generator comes back, however it was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pytest_overfit.run import numpy_generator
from pytest_overfit.run.numpy_generator import drawn_so_far, numpy_state, put_numpy_back, seed_numpy

set_generator: Callable[[Any], None] = vars(np.random)["set_bit_generator"]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    generator = np.random.mtrand._rand._bit_generator
    state = np.random.get_state()  # noqa: NPY002
    yield
    set_generator(generator)
    np.random.set_state(state)  # noqa: NPY002


def uniform() -> None:
    np.random.rand()  # noqa: NPY002


def normal() -> None:
    np.random.randn()  # noqa: NPY002


def one_of_two_normals() -> None:
    for _ in range(3):
        normal()


def another_generator() -> None:
    set_generator(np.random.PCG64(3))


@pytest.mark.parametrize("draw", [lambda: None, uniform, normal, one_of_two_normals, another_generator])
def test_what_was_left_comes_back(draw: Callable[[], Any]) -> None:
    """Right behind seeding, in the middle of a row of numbers, with a normal number in hand, and of another kind."""
    seed_numpy(5)
    draw()
    state, told = numpy_state(), repr(np.random.get_state(legacy=False))  # noqa: NPY002
    seed_numpy(6)
    uniform()
    normal()
    if draw is not another_generator:
        assert repr(np.random.get_state(legacy=False)) != told  # noqa: NPY002
    put_numpy_back(state)
    assert repr(np.random.get_state(legacy=False)) == told  # noqa: NPY002


def test_what_was_seeded_is_known_by_its_seed_until_a_number_is_drawn() -> None:
    """Also where others have seeded it; a state that is none of those is read as a whole."""
    seed_numpy(5)
    np.random.seed(5)  # noqa: NPY002
    assert numpy_state() == 5
    before = drawn_so_far()
    uniform()
    assert drawn_so_far() != before
    after = drawn_so_far()
    uniform()
    assert drawn_so_far() != after
    assert isinstance(numpy_state(), dict)
    for seed in range(3 * numpy_generator.MOST_KNOWN):
        seed_numpy(seed)
        assert numpy_state() == seed
    assert len(numpy_generator._seeds) <= numpy_generator.MOST_KNOWN


def test_a_state_that_lies_elsewhere_is_read_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of another NumPy may."""
    monkeypatch.setattr(numpy_generator, "_is_as_known", lambda: False)
    seed_numpy(5)
    assert drawn_so_far() is None
    assert isinstance(numpy_state(), dict)
