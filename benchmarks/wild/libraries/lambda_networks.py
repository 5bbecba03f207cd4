"""lambda-networks: layers that make a linear function of their context, with batch norms inside."""

from __future__ import annotations

from collections.abc import Iterator

from lambda_networks import LambdaLayer
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal, squared_error

LIBRARY = "lambda_networks"
TRAITS = frozenset(["image", "conv", "norm", "batchnorm", "residual", "tuple"])


class Classifier(nn.Module):
    """Two lambda layers behind a convolution, and a class."""

    def __init__(self, reach: int | None = None, depth: int = 1) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 4)
        where = {"n": 64} if reach is None else {"r": reach}
        self.layers = nn.ModuleList(
            LambdaLayer(16, dim_out=16, dim_k=8, heads=2, dim_u=depth, **where) for _ in range(2)
        )

    def features(self, x: Tensor) -> Tensor:
        """The map behind the layers."""
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x).relu()
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        out: Tensor = self.head(self.features(x).mean((2, 3)))
        return out


class Dense(Classifier):
    """A number for every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """The map, as it is to be told."""
        out: Tensor = self.head(self.features(x).movedim(1, -1)).movedim(-1, 1)
        return out


def programs() -> Iterator[Program]:
    """Contexts of the whole image and of a window, and maps."""
    images = lambda: (normal(8, 3, 8, 8), classes(8, 4))  # noqa: E731
    maps = lambda: (normal(4, 3, 8, 8), normal(4, 4, 8, 8, seed=1))  # noqa: E731
    labels = TRAITS | {"labels"}
    yield Program(
        f"{LIBRARY}/LambdaLayer-local",
        LIBRARY,
        lambda: Classifier(5),
        images,
        cross_entropy,
        0.05,
        lr=5e-3,
        traits=labels,
    )
    yield Program(
        f"{LIBRARY}/LambdaLayer-depth", LIBRARY, lambda: Classifier(3, 4), images, cross_entropy, 0.05, lr=5e-3,
        traits=labels,
    )  # fmt: skip
    yield Program(
        f"{LIBRARY}/LambdaLayer-dense", LIBRARY, lambda: Dense(3), maps, squared_error, 0.6, lr=1e-2,
        traits=TRAITS | {"regression", "dense"},
    )  # fmt: skip
