"""A synthetic source in the layout of AerialMegaDepth: one small town, seen from the air and from the ground.

The published data are gated; this scene has what matters about them (two very different viewpoints, metric depth,
exact cameras, a sky whose depth is bogus) and is free to use anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.pair_files import (
    RENDERED_TAGS,
    SKY_LABEL,
    ByteArray,
    Camera,
    DepthArray,
    RawView,
    view_files,
)
from pytest_overfit.two_view.pair.town import (
    SKY,
    SUN,
    Town,
    build_town,
    cameras,
    generator_of,
    labels_of,
    rays,
    shadowed,
    sky_colour,
    smooth_noise,
    surface_colour,
    trace,
)

_SUBPIXELS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))


class RenderedSource(NamedTuple):
    """Where a rendered source lies: the first three arguments of `create_pair`."""

    source_root: Path
    source_seg_root: Path
    source_npz: Path


def render_source(output_root: Path | str, *, seed: int = 0, width: int = 640, height: int = 480) -> RenderedSource:
    """Write a synthetic source of one pair below `output_root`.

    Example:
        >>> source = render_source("town", seed=3)  # doctest: +SKIP
        >>> create_pair(*source, "pair")  # doctest: +SKIP

    Writes `cropped/<scene>/<tag>.{jpg,exr,npz}`, `cropped_seg/<scene>/<tag>.png` and `cropped/{train,val}.npz`.
    View 0 is aerial, view 1 stands on the ground and sees the sky. Depth is exact z in metres at the pixel centres
    (integers), intrinsics have fx = fy, cam2world has OpenCV axes. Sky pixels carry the label 2 and a bogus finite
    depth, as in the real data. The bytes depend on the arguments only.

    Raises:
        PairError: the size or the seed is out of range.
    """
    if not (32 <= width <= 4096 and 32 <= height <= 4096):
        raise PairError(f"width {width}, height {height}", where="render_source", allowed="32 to 4096 pixels each")
    if not 0 <= seed < 10**6:
        raise PairError(f"seed {seed}", where="render_source", allowed="0 to 999999")
    from pytest_overfit.two_view.pair.index import write_index

    root, seg_root = Path(output_root) / "cropped", Path(output_root) / "cropped_seg"
    scene = f"{seed:04d}"
    for view in render_views(seed, width, height, root, seg_root):
        _write_view(view)
    for split in ("train.npz", "val.npz"):
        of_both = [scene, scene]
        write_index(
            root / split, scenes=[scene], images=RENDERED_TAGS, pairs=[(0, 0, 1, 1.0)], images_scene_name=of_both
        )
    return RenderedSource(root, seg_root, root / "train.npz")


def render_views(seed: int, width: int, height: int, root: Path, seg_root: Path) -> tuple[RawView, RawView]:
    """The two views of the town of `seed` as arrays; the paths are only names, nothing is written."""
    rng = generator_of(seed)
    town = build_town(rng)
    aerial, ground = (
        RawView(view_files(root, seg_root, f"{seed:04d}", tag), image, depth, camera, labels)
        for tag, camera in zip(RENDERED_TAGS, cameras(rng, width, height), strict=True)
        for image, depth, labels in [render_view(town, camera, width, height)]
    )
    return aerial, ground


def render_view(town: Town, camera: Camera, width: int, height: int) -> tuple[ByteArray, DepthArray, ByteArray]:
    """Image (H, W, 3) uint8, depth (H, W) float32 in metres and labels (H, W) uint8 of the town through `camera`.

    Geometry and shadows are taken at the pixel centre, colour is the mean of four rays around it.
    """
    eye = camera.cam2world[:3, 3].reshape(3, 1, 1)
    ray = rays(camera, width, height)
    hits = trace(town.bodies, camera, ray)
    sky = hits.body == SKY
    points = eye + ray * np.where(sky, 0.0, hits.depth)
    dark = shadowed(town.bodies, camera, points, SUN)
    colour = np.zeros((3, height, width))
    for du, dv in _SUBPIXELS:
        near = rays(camera, width, height, du, dv)
        met = trace(town.bodies, camera, near)
        above = met.body == SKY
        albedo, facing = surface_colour(town, met, eye + near * np.where(above, 0.0, met.depth))
        lit = albedo * (0.48 + 0.62 * facing * ~dark)
        colour += np.where(above, sky_colour(town, near), lit) / len(_SUBPIXELS)
    image = np.clip(np.rint(colour * 255.0), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    depth = np.where(sky, _bogus_depth(town, width, height), hits.depth).astype(np.float32)
    return np.ascontiguousarray(image), depth, labels_of(town, hits)


def _bogus_depth(town: Town, width: int, height: int) -> DepthArray:
    """What stereo makes of a sky: finite, smooth and wrong, 10 to 80 m (H, W)."""
    u, v = np.meshgrid(np.arange(width) / width * 9.0, np.arange(height) / height * 9.0)
    return (10.0 + 70.0 * smooth_noise(town.noise, u + 100.0, v + 30.0) ** 2).astype(np.float32)


def _write_view(view: RawView) -> None:
    from pytest_overfit.two_view.pair.exr_depth import write_exr

    files = view.files
    assert view.labels is not None
    assert files.mask is not None
    assert ((view.labels == SKY_LABEL) | (view.depth > 0)).all()
    files.image.parent.mkdir(parents=True, exist_ok=True)
    files.mask.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(view.image).save(files.image, format="JPEG", quality=95, subsampling=0)
    Image.fromarray(view.labels).save(files.mask, format="PNG")
    write_exr(files.depth, view.depth)
    np.savez(files.camera, intrinsics=view.camera.intrinsics, cam2world=view.camera.cam2world)
