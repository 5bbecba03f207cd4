"""What was seen of a batch beside the files that it was made of: plain numbers, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Placed:
    """Where the content of a file lies in the batch: u' = scale_x u + right, v' = scale_y v + down, in pixels.

    `turn` is how the file was flipped first, "" for not at all; `file` is the view of the pair that it is; `fit` is the
    correlation of colours, or the share of depths that are those of the file.
    """

    file: int
    turn: str
    scale_x: float
    scale_y: float
    right: float
    down: float
    fit: float

    def at(self, u: float, v: float) -> tuple[float, float]:
        """Where a pixel of the file lies in the batch."""
        return self.scale_x * u + self.right, self.scale_y * v + self.down


@dataclass(frozen=True)
class SourceView:
    """One view of a batch of `height` x `width`, and the file of the same place in the pair.

    `image` and `depth` are where their contents lie, None where they were not found; `camera` where the intrinsics say
    that they lie, and `focal` the focal length of the file. `form` is what a depth of the file was made into, by its
    name in ``conventions``, and `factor` what it was multiplied by. `sky` is the share of the view that the mask on
    disk calls sky, `kept` the share of that which counts in the batch; `label` is the one whose pixels do not count
    although nothing is wrong with them, None where there is none.
    """

    view: int
    height: int
    width: int
    image: Placed | None
    depth: Placed | None
    camera: Placed
    focal: tuple[float, float]
    principal: tuple[float, float]
    form: str = ""
    factor: float = 1.0
    sky: float = 0.0
    kept: float = 0.0
    label: int | None = None


@dataclass(frozen=True)
class SourcePose:
    """The second camera seen from the first, in the batch and on disk.

    `turned` are the degrees between the two rotations, `moved` the relative difference of the translations, after
    `factor`, the length of that of the batch over that on disk; `same`: the batch has one pose twice. `change` is the
    convention under which they are equal, "" where none is found.
    """

    turned: float
    moved: float
    factor: float
    same: bool
    change: str


@dataclass(frozen=True)
class SourceSeen:
    """A batch beside its files; `name` is that of the pair on disk."""

    name: str
    views: tuple[SourceView, ...]
    pose: SourcePose
