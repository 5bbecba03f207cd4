"""rtdl-num-embeddings: vectors for the numbers of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import rtdl_num_embeddings as rtdl
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal, squared_error

COLUMNS = 5


class Table(nn.Module):
    """Embeddings of every column, one behind the other, and a small network."""

    def __init__(self, embed: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.embed = embed
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(COLUMNS * width, 32), nn.ReLU(), nn.Linear(32, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """What is told of each row."""
        out: Tensor = self.body(self.embed(x))
        return out


def bins() -> list[Tensor]:
    """The edges of four bins for each column of the table."""
    return rtdl.compute_bins(normal(32, COLUMNS), n_bins=4)


def programs() -> Iterator[Program]:
    """Lines, waves and bins."""
    library = "rtdl_num_embeddings"
    periodic: Callable[[], nn.Module] = lambda: rtdl.PeriodicEmbeddings(COLUMNS, 8, n_frequencies=8, lite=False)  # noqa: E731
    for name, embed, outputs in (
        ("LinearReLUEmbeddings", lambda: rtdl.LinearReLUEmbeddings(COLUMNS, 8), 3),
        ("PeriodicEmbeddings", periodic, 1),
        (
            "PiecewiseLinearEmbeddings",
            lambda: rtdl.PiecewiseLinearEmbeddings(bins(), 8, activation=False, version="B"),
            3,
        ),
    ):
        sorted_ = outputs > 1
        yield Program(
            f"{library}/{name}",
            library,
            lambda embed=embed, outputs=outputs: Table(embed(), 8, outputs),
            (lambda: (normal(12, COLUMNS), classes(12, 3)))
            if sorted_
            else (lambda: (normal(12, COLUMNS), normal(12, 1, seed=1))),
            cross_entropy if sorted_ else squared_error,
            0.02,
            lr=1e-2,
            traits=frozenset(["tuple", "tabular", "labels" if sorted_ else "regression"]),
        )
