"""What was seen of a two-view batch, and of what a model predicts for it: plain numbers, without torch.

Views are counted from 0. Relative depth differences are differences of logarithms, so 0.05 is 5 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TOLERANCES = (0.005, 0.015, 0.05)  # relative depth differences at which agreement is counted


@dataclass(frozen=True)
class Agreement:
    """How the valid pixels of two views meet, each looked up in the other.

    `landed` is the share that lands on valid depth of the other view; of those, `agree` counts who lies on its surface
    within each of TOLERANCES, and `before` who lies in front of it by more than the widest (the other view sees
    through). `colour` is the correlation of the colours where the surfaces meet, -1 to 1; NaN where there are no
    images, no texture, or too few such pixels. `pixels` were looked up.
    """

    landed: float
    agree: tuple[float, float, float]
    before: float
    colour: float
    pixels: int

    @property
    def score(self) -> float:
        """0 to 1: surfaces meet, where the cameras say so, in the same colours."""
        seen = 1.0 if math.isnan(self.colour) else max(self.colour, 0.0)
        return sum(self.agree) / len(self.agree) * math.sqrt(self.landed) * seen

    @property
    def meeting(self) -> float:
        """Share of all looked-up pixels that lie on the other view's surface, within the middle tolerance."""
        return self.landed * self.agree[1]


@dataclass(frozen=True)
class Change:
    """One thing changed in the batch, and how the views agree then.

    `name` is a key of the rules' texts; `view` the only view that is changed (None: all); `factor` what the changed
    quantity is multiplied by. `pictures` says that the images had to be changed with the depths. `beside` is the
    better score of factors half as large and half as small again (0 where there is no factor), `chance` the best depth
    agreement, 0 to 1, of the same cameras with the content of one depth map turned: what agrees without meaning it.
    """

    name: str
    view: int | None
    factor: float
    agreement: Agreement
    pictures: bool = False
    beside: float = 0.0
    chance: float = 0.0


@dataclass(frozen=True)
class Picture:
    """How the colours of two views fit where the depths say that they see the same point.

    `given` and `best` are correlations, `difference` and `best_difference` median colour differences in units of the
    colours' own deviation: with the images as they are, and after the change that fits best; `aside` and
    `aside_difference` are those of a few pixels beside that. `nudged` is the correlation that one image alone reaches
    if it is shifted a little, as a camera that is a little off would have it, and `rough` the part of the variance of
    the colours that their neighbours do not tell: what interpolation costs. `right` and `down` are
    shares of the width and height by which the content of the images lies off, `zoom` the factor of its size.
    """

    name: str
    view: int | None
    given: float
    difference: float
    best: float
    best_difference: float
    aside: float
    aside_difference: float
    nudged: float
    rough: float
    right: float = 0.0
    down: float = 0.0
    zoom: float = 1.0
    pixels: int = 0


@dataclass(frozen=True)
class Pair:
    """Two views of one sample.

    `changes` are the best first; empty where the views agree as given, or nothing helps. `nudged` is the score that
    cameras reach that are within a few degrees, and a part of the baseline, of the given ones.
    """

    sample: int
    first: int
    second: int
    given: Agreement
    changes: tuple[Change, ...] = ()
    nudged: float = 0.0
    picture: Picture | None = None


@dataclass(frozen=True)
class Frame:
    """One view of one sample.

    `valid` is the share of the pixels that count (point_masks, or depth above 0 without them); of those, `without` is
    the share without any depth (one and the same number `empty`, at most 0). `principal` is the principal point over
    the image size, x then y; NaN where the intrinsics are no pinhole's.
    """

    sample: int
    view: int
    valid: float
    without: float
    empty: float
    principal: tuple[float, float]


@dataclass(frozen=True)
class Plateau:
    """Depth that is one and the same number over a connected part of a view, or of both views of a pair.

    `views` are those that carry it, `share` is its part of the valid pixels, `beyond` its depth over the 98th
    percentile of the rest, `apart` over the deepest of them, or the nearest over it: 1 where it clips the rest,
    infinity where it lies among them. Looked up in the other view, `contradicted` is the share that cannot be a
    surface there (the other view sees through, or carries the same number where the cameras ask for another), `met`
    the share that lies on a surface; 0 and NaN where too few land. `rest` is the share of all other pixels that agree,
    and `left_out` the share of the view that point_masks leaves out although both views agree on its depth.
    """

    sample: int
    views: tuple[int, ...]
    depth: float
    share: float
    beyond: float
    contradicted: float
    met: float
    rest: float
    apart: float
    left_out: float = 0.0


@dataclass(frozen=True)
class Points:
    """A key of points against those of depths and cameras: `factor` times as large, up to a relative `residual`."""

    key: str
    factor: float
    residual: float


@dataclass(frozen=True)
class ViewsSeen:
    """A batch of `samples` with `views` of `height` x `width` pixels each; `masked`: it has point_masks."""

    samples: int
    views: int
    height: int
    width: int
    frames: tuple[Frame, ...] = ()
    pairs: tuple[Pair, ...] = ()
    plateaus: tuple[Plateau, ...] = ()
    points: tuple[Points, ...] = ()
    masked: bool = False


@dataclass(frozen=True)
class DepthPredicted:
    """A predicted depth against the batch's, over valid pixels; errors are medians of |p - g| / g.

    `factor` is the median of p / g, `aligned` the error once every sample is divided by its own factor, `spread` the
    error that the best constant would have, `correlation` that of the logarithms. `turned_error` is the error of the
    prediction `turned`, the way that fits best.
    """

    name: str
    error: float
    factor: float
    aligned: float
    spread: float
    correlation: float
    turned: str = ""
    turned_error: float = math.inf


@dataclass(frozen=True)
class ViewsPredicted:
    """What a model predicts for a two-view batch.

    `baseline` is the length of the predicted camera translations over that of the batch's, `camera_error` the relative
    error of the translations; None where no cameras are predicted, or the cameras do not move.
    """

    depths: tuple[DepthPredicted, ...] = ()
    baseline: float | None = None
    camera_error: float | None = None


SURE = 0.95  # weight of what cannot be otherwise


def plain_number(value: float) -> str:
    """Three digits, without an exponent where there is room: 5550, 0.171."""
    return f"{float(f'{value:.3g}'):.6g}"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


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
