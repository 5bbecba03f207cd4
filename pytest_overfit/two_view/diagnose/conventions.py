"""What each change of a two-view batch means: the key that is wrong, and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_overfit.two_view.diagnose.views import Change


@dataclass(frozen=True)
class Convention:
    """What a change means: the id of the cause, the key that is wrong, `once` what the views agree, what to `do`.

    `{of}` becomes " of view 1", `{at}` an index "[:, 1]", `{factor}` a number.
    """

    id: str
    key: str
    once: str
    do: str


_CAMERA, _LINE_UP, _UNITS = "camera-convention", "misalignment", "units"
CONVENTIONS: Mapping[str, Convention] = {
    "inverted": Convention(_CAMERA, "extrinsics", "the extrinsics{of} are inverted",
        "torch.linalg.inv(extrinsics{at}) as 4x4: world2cam is wanted, it holds cam2world (or the other view's)"),
    "OpenGL": Convention(_CAMERA, "extrinsics", "y and z of the camera axes{of} are negated",
        "diag(1, -1, -1) @ extrinsics{at}: from OpenGL axes (y up, z backwards) to OpenCV axes"),
    "inverted OpenGL": Convention(_CAMERA, "extrinsics",
        "the extrinsics{of} are inverted and y and z of the camera axes negated",
        "diag(1, -1, -1, 1) @ torch.linalg.inv(extrinsics{at}): it holds cam2world in OpenGL axes (Blender, NeRF)"),
    "half inverted": Convention(_CAMERA, "extrinsics",
        "the rotation{of} is transposed and the translation negated",
        "invert extrinsics{at} as [R^T | -R^T t]: the translation was not turned by the rotation"),
    "rotation transposed": Convention(_CAMERA, "extrinsics", "the rotation{of} is transposed",
        "extrinsics{at}[..., :3, :3].mT: rotation and translation go in opposite directions"),
    "translation negated": Convention(_CAMERA, "extrinsics", "the translation{of} is negated",
        "-extrinsics{at}[..., :3, 3]"),
    "translation is the centre": Convention(_CAMERA, "extrinsics",
        "the translation{of} is taken for the camera's position",
        "t = -R @ centre in extrinsics{at}[..., :3, 3]: it holds the camera's position"),
    "PyTorch3D": Convention(_CAMERA, "extrinsics", "x and y of the camera axes{of} are negated",
        "diag(-1, -1, 1) @ extrinsics{at}: from PyTorch3D axes (x left, y up) to OpenCV axes"),
    "left-handed": Convention(_CAMERA, "extrinsics", "y of the camera axes{of} is negated",
        "diag(1, -1, 1) @ extrinsics{at}: from left-handed axes (y up, z forward) to OpenCV axes"),
    "OpenGL world": Convention(_CAMERA, "extrinsics", "y and z of the world axes{of} are negated",
        "extrinsics{at} @ diag(1, -1, -1, 1): all views need the same world axes"),
    "rows swapped": Convention(_CAMERA, "extrinsics", "x and y of the camera axes{of} are swapped",
        "extrinsics{at}[..., [1, 0, 2], :]: x right, y down, z forward is wanted"),
    "along the ray": Convention(_CAMERA, "depths", "the depths{of} are taken along the ray",
        "depths{at} / |K^-1 (u, v, 1)|: z is wanted, it holds distances to the camera"),
    "reciprocal": Convention(_UNITS, "depths", "the depths{of} are inverted", "1 / depths{at}: it holds inverse depth"),
    "exponential": Convention(_UNITS, "depths", "the exponential of the depths{of} is taken",
        "depths{at}.exp(): it holds logarithms"),
    "baseline": Convention(_UNITS, "extrinsics", "the translations of the extrinsics are multiplied by {factor}",
        "extrinsics[..., :3, 3] * {factor}, or depths / {factor}: both need one unit"),
    "depth scaled": Convention(_UNITS, "depths", "the depths{of} are multiplied by {factor}",
        "depths{at} * {factor}: all views need one unit"),
    "intrinsics scaled": Convention(_LINE_UP, "intrinsics", "the intrinsics are multiplied by {factor}",
        "intrinsics[..., :2, :] * {factor}: they belong to images of another size"),
    "focal length scaled": Convention(_LINE_UP, "intrinsics", "the focal length is multiplied by {factor}",
        "intrinsics[..., 0, 0] and [..., 1, 1] * {factor}: they belong to images of another size or crop"),
    "depths exchanged": Convention(_LINE_UP, "depths", "the depths of the two views are exchanged",
        "the order of the views: depths and point_masks are in another one than images and cameras"),
    "principal point at the centre": Convention(_LINE_UP, "intrinsics",
        "the principal point lies in the middle of the image",
        "subtract the corner of the crop from intrinsics[..., :2, 2]"),
    "intrinsics in shares": Convention(_LINE_UP, "intrinsics", "the intrinsics are multiplied by width and height",
        "intrinsics[..., 0, :] * width and intrinsics[..., 1, :] * height: pixels are wanted"),
    "intrinsics transposed": Convention(_LINE_UP, "intrinsics", "the intrinsics are transposed", "intrinsics.mT"),
    "intrinsics y first": Convention(_LINE_UP, "intrinsics", "x and y of the intrinsics are exchanged",
        "exchange fx with fy and cx with cy: they are in the order y, x"),
}  # fmt: skip
TURNS: Mapping[str, str] = {
    "flipped left to right": ".flip(-1)", "flipped upside down": ".flip(-2)",
    "turned by half a turn": ".flip((-2, -1))", "transposed": ".mT",
}  # fmt: skip


def meaning_of(change: Change) -> Convention:
    """What a change found in a batch says of it."""
    if change.name not in TURNS:
        return CONVENTIONS[change.name]
    turn = TURNS[change.name]
    if change.pictures:
        once = f"depths and images{{of}} are {change.name}"
        return Convention(_LINE_UP, "intrinsics", once, "turn the cameras with depths and images, or none of them")
    do = f"depths{{at}}{turn} and point_masks{{at}}{turn}: what turned them did not turn the images, or the other way"
    return Convention(_LINE_UP, "depths", f"the depths{{of}} are {change.name}", do)
