"""Cut one pair out of a source into a folder of its own: all of it, or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.index import locate_pair, read_index, write_index
from pytest_overfit.two_view.pair.pair_files import FollowLinks, PairFiles, view_files
from pytest_overfit.two_view.pair.readers import read_view

SPLITS = ("train.npz", "val.npz")
SEGMENTATION = "seg"
CONFIG_NAME = "single_pair_test.yaml"


def create_pair(
    source_root: Path | str,
    source_seg_root: Path | str | None,
    source_npz: Path | str,
    output_root: Path | str,
    *,
    pair_index: int = 0,
    overwrite: bool = False,
    follow_links: FollowLinks = False,
) -> PairFiles:
    """Copy pair `pair_index` of a source to `output_root`, with an index of its own.

    Example:
        >>> create_pair("cropped", "cropped_seg", "cropped/train.npz", "single_pair_data").seq_name
        'aerial_megadepth_0001_0'

    Writes `train.npz` and `val.npz` (the same one pair, images 0 and 1, no pickle), `<scene>/<tag>.{jpg,exr,npz}` and
    `seg/<scene>/<tag>.png`, the files byte for byte. Everything is read and judged first; the folder then appears with
    one rename. A folder that already holds this very pair is left alone.

    Args:
        source_root: folder of the scenes.
        source_seg_root: folder of the masks, or None; single masks may be missing too.
        source_npz: the index of the source.
        output_root: the folder to create.
        pair_index: which pair of the index.
        overwrite: replace another pair in `output_root`; files that are not part of a pair are never deleted.
        follow_links: where links in the source may lead, as in `locate_pair`; what they lead to is copied.

    Raises:
        PairError: the source is not sound, or `output_root` holds something else.
    """
    index = read_index(source_npz)
    source = locate_pair(source_root, source_npz, source_seg_root, pair_index, index=index, follow_links=follow_links)
    for view in source.views:
        read_view(view)
    target = Path(output_root).absolute()
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise PairError("is not a folder", where=target, allowed="a new folder, or one that holds a pair")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise PairError(f"cannot be created ({error.strerror})", where=target) from error
    try:
        fresh = aside / "pair"
        _write(source, float(index.scores[source.pair_index : source.pair_index + 1][0]), fresh)
        if not _holds(target, fresh):
            _check_replaceable(target, overwrite=overwrite)
            _swap(fresh, target, aside / "old")
    except OSError as error:
        raise PairError(f"cannot be written ({error.strerror})", where=target) from error
    finally:  # KeyboardInterrupt included
        shutil.rmtree(aside, ignore_errors=True)
    return locate_pair(output_root, Path(output_root) / SPLITS[0], Path(output_root) / SEGMENTATION, 0)


def _write(source: PairFiles, score: float, folder: Path) -> None:
    scene = source.views[0].scene
    for view in source.views:
        copy = view_files(folder, folder / SEGMENTATION, scene, view.tag)
        assert copy.mask is not None
        pairs = [(view.image, copy.image), (view.depth, copy.depth), (view.camera, copy.camera)]
        pairs += [] if view.mask is None else [(view.mask, copy.mask)]
        for old, new in pairs:
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old, new)
    for split in SPLITS:
        write_index(
            folder / split,
            scenes=[scene],
            images=[view.tag for view in source.views],
            pairs=[(0, 0, 1, score)],
            images_scene_name=[scene, scene],
        )


def _files(folder: Path) -> list[Path]:
    """All files and links below `folder`, as relative paths; links are not followed."""
    found = (Path(base) / name for base, folders, names in os.walk(folder) for name in [*names, *folders])
    return sorted(path.relative_to(folder) for path in found if path.is_symlink() or not path.is_dir())


def _holds(folder: Path, fresh: Path) -> bool:
    """Whether `folder` already holds the pair in `fresh`, byte for byte (it may have files besides the pair)."""
    wanted = _files(fresh)
    same = all((folder / name).is_file() for name in wanted) and all(
        (folder / name).read_bytes() == (fresh / name).read_bytes() for name in wanted
    )
    # A mask that only the folder has would change what the pair says.
    return same and not any((folder / name).exists() for name in _named_files(fresh / SPLITS[0]) - set(wanted))


def _check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """An empty or absent folder, or (overwrite) one with nothing but the files of the pairs that its index names."""
    present = _files(folder) if folder.exists() else []
    if not present:
        return
    if not overwrite:
        raise PairError(
            f"already holds {len(present)} files, {present[0]} among them",
            where=folder,
            allowed="a new folder, or one that holds this very pair",
            hint="choose another folder, or overwrite the pair in it (--overwrite)",
        )
    ours = {Path(CONFIG_NAME)}
    for split in SPLITS:
        if (folder / split).is_file():
            ours |= {Path(split), *_named_files(folder / split)}
    foreign = [name for name in present if name not in ours]
    if foreign:
        raise PairError(
            f"holds {foreign[0]}, which is not part of a pair ({len(foreign)} such files)",
            where=folder,
            allowed="only the files of a pair, which --overwrite may replace",
        )


def _named_files(split_file: Path) -> set[Path]:
    """The files, relative to its folder, that the index of ONE pair names: a whole data set is nothing to replace."""
    index = read_index(split_file)
    if len(index) != 1 or len(index.images) > 2:
        raise PairError(
            f"holds {len(index)} pairs of {len(index.images)} images",
            where=split_file,
            allowed="one pair of two images, which --overwrite may replace",
        )
    named: set[Path] = set()
    for tag, scene in zip(index.images, index.images_scene_name, strict=True):
        if tag is not None:
            files = view_files(Path(), Path(SEGMENTATION), scene or "", tag)
            named |= {files.image, files.depth, files.camera, files.mask or files.image}
    return named


def _swap(fresh: Path, target: Path, old: Path) -> None:
    """Put `fresh` in the place of `target`; the config in it stays. On any interruption `target` is as it was."""
    if not target.exists():
        _rename(fresh, target)
        return
    if (target / CONFIG_NAME).is_file():
        shutil.copyfile(target / CONFIG_NAME, fresh / CONFIG_NAME)
    try:
        target.rename(old)
        _rename(fresh, target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise


def _rename(fresh: Path, target: Path) -> None:
    """One rename; another process that has put the very same pair there in the meantime is as good."""
    try:
        fresh.rename(target)
    except OSError:
        if not _holds(target, fresh):
            raise
