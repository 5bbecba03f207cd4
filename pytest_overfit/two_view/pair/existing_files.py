"""The files that an index names: seen to be there, and inside of their folders."""

from __future__ import annotations

import itertools
import os
import shlex
from pathlib import Path

import numpy as np

from pytest_overfit.errors import PairError
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.two_view.pair.pair_files import RENDERED_TAGS, FollowLinks, ViewFiles
from pytest_overfit.two_view.pair.readers import read_camera
from pytest_overfit.untrusted.files import open_regular

MOST_NAMES = 10_000  # of a folder
# Nothing that would write into the root, which may be the data set of somebody.
_RESTORE = (
    "restore it, or look whether the root is the right one; pytest-overfit pair create cuts a pair anew, into "
    "another folder"
)


def existing(files: ViewFiles, root: Path, segmentation_root: Path | None, follow_links: FollowLinks) -> ViewFiles:
    """The same files, seen to exist inside their folders; a missing mask becomes None."""
    _scene_there(root / files.scene)
    for path in (files.image, files.depth, files.camera):
        _stay_inside(path, root, follow_links)
        hint = _RESTORE if os.path.lexists(path) else _rendered_again(files, root) or _RESTORE
        with open_regular(path, error=PairError, hint=hint):
            pass
    mask = files.mask
    if mask is not None and segmentation_root is not None and (mask.is_file() or mask.is_symlink()):
        _stay_inside(mask, segmentation_root, follow_links)
    if mask is None or not mask.is_file():
        return ViewFiles(files.scene, files.tag, files.image, files.depth, files.camera, None, no_mask=mask)
    return ViewFiles(files.scene, files.tag, files.image, files.depth, files.camera, mask)


def _rendered_again(files: ViewFiles, root: Path) -> str:
    """The command that wrote a rendered pair; empty where what is left of it is not certainly one.

    A scene has the number of its seed, and the town of a seed is seen from the same two cameras each time.
    """
    if files.tag not in RENDERED_TAGS or not files.scene.isdecimal():
        return ""
    from pytest_overfit.two_view.pair.town import cameras_of

    seed = int(files.scene)
    for tag, made in zip(RENDERED_TAGS, cameras_of(seed), strict=True):
        try:
            found = read_camera(root / files.scene / f"{tag}.npz")
        except PairError:
            return ""
        if not np.array_equal(found.cam2world, made.cam2world):
            return ""
    option = f" --seed {seed}" if seed else ""
    return f"pytest-overfit pair create --render{option} --output-root {shlex.quote(str(root))} --overwrite"


def _scene_there(folder: Path) -> None:
    """A PairError, where the folder of a scene is not there, with those that are."""
    if os.path.lexists(folder) or not folder.parent.is_dir():
        return
    with os.scandir(folder.parent) as entries:
        scenes = sorted(each.name for each in itertools.islice(entries, MOST_NAMES) if each.is_dir())
    told = f"of {folder.parent}, there {'is' if len(scenes) == 1 else 'are'} {shorten(scenes) or 'no folder'}"
    raise PairError("no such folder: the scene that the index names", where=folder, allowed=told, hint=_RESTORE)


def _stay_inside(path: Path, root: Path, follow_links: FollowLinks) -> None:
    """A PairError, unless the file really lies below its root, or where its links may lead."""
    if follow_links is True:
        return
    named = list(follow_links) if follow_links else []
    try:
        real = path.resolve()
        inside = any(real.is_relative_to(folder.resolve()) for folder in (root, *named))
        leads = _way_out(path, root)
    except (OSError, RuntimeError) as error:  # a loop of links
        raise PairError(f"cannot be resolved ({error})", where=path) from error
    if not inside:
        also = f", or below {', '.join(map(str, named))}" if named else ""
        hint = (
            f"copy it, or allow links into that folder: overfit.pair.follow_links: [{leads}] in the config, "
            f"--follow-links {leads} of pytest-overfit pair"
        )
        raise PairError(f"is a link to {real}", where=path, allowed=f"a file below {root}{also}", hint=hint)


def _way_out(path: Path, root: Path) -> Path:
    """The folder that the first link on the way from the root to the file leads into."""
    inside, place = root.resolve(), root
    for part in path.relative_to(root).parts:
        place = place / part
        real = place.resolve()
        if not real.is_relative_to(inside):
            return real if real.is_dir() else real.parent
    return path.resolve().parent
