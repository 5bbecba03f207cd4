"""Cut one pair out of a source into a folder of its own: all of it, or nothing. And the config that trains on it."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.index import locate_pair, read_index, write_index
from pytest_overfit.two_view.pair.pair_files import FollowLinks, PairFiles, view_files
from pytest_overfit.two_view.pair.readers import read_view
from pytest_overfit.untrusted.files import read_regular

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
        >>> create_pair("cropped", "cropped_seg", "cropped/train.npz", "single_pair_data").seq_name  # doctest: +SKIP
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
        overwrite: replace another pair in `output_root`, or bring back files of this one that are missing; files that
            are not part of a pair are never deleted.
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
            if overwrite and _is_of_this_pair(target, fresh):
                _complete(target, fresh)
            else:
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
        tags, pair = [view.tag for view in source.views], [(0, 0, 1, score)]
        write_index(folder / split, scenes=[scene], images=tags, pairs=pair, images_scene_name=[scene, scene])


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


def _is_of_this_pair(folder: Path, fresh: Path) -> bool:
    """Whether the index of `folder` is that of the pair in `fresh`: some of its files may be missing, or changed."""
    there = [split for split in SPLITS if (folder / split).is_file()]
    same = all((folder / split).read_bytes() == (fresh / split).read_bytes() for split in there)
    return SPLITS[0] in there and same and not any((folder / name).parent.is_symlink() for name in _files(fresh))


def _complete(folder: Path, fresh: Path) -> None:
    """Every file of the pair in its place again; what else is there, one that was renamed, stays."""
    wanted = _files(fresh)
    for name in wanted:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).replace(folder / name)
    for name in _named_files(folder / SPLITS[0]) - set(wanted):
        (folder / name).unlink(missing_ok=True)


def _check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """An empty or absent folder, or (overwrite) one with nothing but the files of the pairs that its index names."""
    present = _files(folder) if folder.exists() else []
    if not present:
        return
    if not overwrite:
        found = f"already holds {len(present)} files, {present[0]} among them"
        hint = "choose another folder, or overwrite the pair in it (--overwrite)"
        raise PairError(found, where=folder, allowed="a new folder, or one that holds this very pair", hint=hint)
    ours = {Path(CONFIG_NAME)}
    for split in SPLITS:
        if (folder / split).is_file():
            ours |= {Path(split), *_named_files(folder / split)}
    foreign = [name for name in present if name not in ours]
    if foreign:
        found = f"holds {foreign[0]}, which is not part of a pair ({len(foreign)} such files)"
        raise PairError(found, where=folder, allowed="only the files of a pair, which --overwrite may replace")


def _named_files(split_file: Path) -> set[Path]:
    """The files, relative to its folder, that the index of ONE pair names: a whole data set is nothing to replace."""
    index = read_index(split_file)
    if len(index) != 1 or len(index.images) > 2:
        found = f"holds {len(index)} pairs of {len(index.images)} images"
        raise PairError(found, where=split_file, allowed="one pair of two images, which --overwrite may replace")
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


MOST_BYTES = 2**20
CLASS = "data.datasets.aerial_megadepth.AerialMegaDepthDataset"  # where the repository does not say otherwise
DEFAULTS = "default_dataset.yaml"  # what a VGGT-style trainer keeps beside its configs


def config_text(pair: PairFiles, folder: Path, *, style: str = "own") -> str:
    """The text of a config that lies in `folder` and trains on `pair`; a pair without all masks keeps its sky.

    `style` is `own` (this plugin's data path, model and loss) or `vggt`: the form of a VGGT-style trainer, for its
    classes and its launcher too. Its paths are absolute, and it starts from `default_dataset.yaml` where `folder` has
    one.
    """
    name = CONFIG_NAME if style == "own" else CONFIG_NAME.replace(".", f"_{style}.")
    template = resources.files("pytest_overfit.two_view.pair").joinpath(f"{name}.in").read_text(encoding="utf-8")
    root = Path(os.path.relpath(pair.root.absolute(), folder.absolute())).as_posix()
    if style == "vggt":  # a trainer opens relative paths from wherever it was started
        root = pair.root.absolute().as_posix()
        listed = f"defaults:\n  - {DEFAULTS}\n\n" if (folder / DEFAULTS).is_file() else ""
        template = template.replace("@DEFAULTS@", listed).replace(CLASS, _data_class(folder))
    below = "." if root == "." else root.rstrip("/")
    values = {
        "@ROOT@": root,
        "@TRAIN@": f"{below}/{SPLITS[0]}",
        "@VAL@": f"{below}/{SPLITS[1]}",
        "@SEG@": f"{below}/{SEGMENTATION}",
    }
    for mark, path in values.items():
        template = template.replace(mark, path if re.fullmatch(r"[./\w][./\w-]*", path) else json.dumps(path))
    return template.replace("@SKY@", "true" if all(view.mask for view in pair.views) else "false")


def _data_class(folder: Path) -> str:
    """The class of the trainer's repository around ``folder`` that reads such pairs: by what it is built with."""
    near = [folder.absolute(), *folder.absolute().parents[:3]]
    homes = (home / "data" / "datasets" for at in near for home in (at, at / "training"))
    for file in (file for home in homes for file in sorted(home.glob("*.py"))):
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for each in (node for node in tree.body if isinstance(node, ast.ClassDef)):
                names = {a.arg for node in ast.walk(each) if isinstance(node, ast.arguments) for a in node.args}
                if {"ROOT", "split_file", "segmentation_root"} <= names:
                    return f"data.datasets.{file.stem}.{each.name}"
    return CLASS


def write_config(pair: PairFiles, path: Path, *, overwrite: bool = False, style: str = "own") -> bool:
    """Write the config to `path`, in one rename; False where a file of other content lies there and stays.

    Raises:
        PairError: the file cannot be written.
    """
    text = config_text(pair, path.parent, style=style)
    try:
        if path.exists() and not overwrite:
            return read_regular(path, most=MOST_BYTES, error=PairError) == text.encode("utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise PairError(f"cannot be written ({error})", where=path) from error
    return True
