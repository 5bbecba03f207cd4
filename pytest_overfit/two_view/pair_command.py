"""`pytest-overfit pair`: cut a pair out of a source, check one, show one."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_overfit.errors import PairError
    from pytest_overfit.two_view.pair.check import PairReport
    from pytest_overfit.two_view.pair.pair_files import FollowLinks, PairFiles

_EXR_SWITCH = "OPENCV_IO_ENABLE_OPENEXR"
_DEFAULT_SOURCE = "aerialmegadepth/cropped"
_SHEET_NAME = "contact_sheet.png"


def add_arguments(topic: argparse.ArgumentParser) -> None:
    """The verbs of ``pytest-overfit pair``."""
    verbs = topic.add_subparsers(required=True, metavar="VERB")
    _add_create(verbs)
    check = verbs.add_parser("check", help="print the numbers and the problems of a pair", allow_abbrev=False)
    check.add_argument("--img-size", type=int, default=518, help="width of the batch (default: %(default)s)")
    check.set_defaults(run=_check)
    show = verbs.add_parser("show", help="draw a pair: depths, masks, geometry", allow_abbrev=False)
    show.add_argument("--output", type=Path, metavar="FILE.png", help=f"default: DIR/{_SHEET_NAME}")
    show.add_argument("--img-size", type=int, help="show the batch of this width (default: the files as they are)")
    show.set_defaults(run=_show)
    for verb in (check, show):
        _add_options(verb)


def _add_create(verbs: Any) -> None:
    create = verbs.add_parser("create", help="cut one pair out of a source", allow_abbrev=False)
    create.add_argument("--source-root", type=Path, help=f"folder of the scenes (default: {_DEFAULT_SOURCE})")
    create.add_argument("--source-seg-root", type=Path, help="folder of the masks (default: SOURCE_ROOT + '_seg')")
    create.add_argument("--source-npz", type=Path, help="its index, also below SOURCE_ROOT (default: train.npz)")
    create.add_argument("--output-root", type=Path, default=Path("single_pair_data"), help="default: %(default)s")
    create.add_argument("--pair-index", type=int, default=0, help="which pair of the index (default: %(default)s)")
    create.add_argument(
        "--create-config", nargs="?", type=Path, const=Path(), metavar="PATH",
        help="also write a config that runs as it is (default: OUTPUT_ROOT/single_pair_test.yaml)",
    )  # fmt: skip
    create.add_argument(
        "--config-style", choices=("own", "vggt"), default="own",
        help="of --create-config: our model and loss, or a VGGT-style trainer's classes (default: %(default)s)",
    )  # fmt: skip
    create.add_argument("--overwrite", action="store_true", help="replace another pair, or a config, that is there")
    create.add_argument("--render", action="store_true", help="use a rendered synthetic source instead")
    create.add_argument("--seed", type=int, help="the scene to render (default: 0)")
    _add_follow_links(create)
    create.set_defaults(run=_create)


def _add_follow_links(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--follow-links", nargs="*", action="extend", type=Path, metavar="FOLDER",
        help="follow links that lead out of the pair's folder: into these folders, or anywhere where none is named",
    )  # fmt: skip


def _batch_options(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("img_size", "aspect_ratio", "patch_size", "remove_sky")}


def _followed(options: argparse.Namespace) -> FollowLinks:
    return False if options.follow_links is None else options.follow_links or True


def _add_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folder", type=Path, metavar="DIR", help="what `pair create` made")
    _add_follow_links(verb)
    verb.add_argument("--aspect-ratio", type=float, default=0.92, help="height / width (default: %(default)s)")
    verb.add_argument("--patch-size", type=int, default=14, help="height is a multiple of it (default: %(default)s)")
    verb.add_argument("--no-remove-sky", dest="remove_sky", action="store_false", help="keep the depth of the sky")


def _create(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    sources = [options.source_root, options.source_seg_root, options.source_npz]
    if options.render and any(source is not None for source in sources):
        parser.error("--render makes its own source: leave out --source-root, --source-seg-root and --source-npz")
    if options.seed is not None and not options.render:
        parser.error("--seed is the seed of --render")
    if options.config_style != "own" and options.create_config is None:
        parser.error("--config-style is the style of --create-config")
    pair = _rendered_pair(options) if options.render else _cut_pair(options)
    print(f"{pair.seq_name} in {pair.root}")
    for view in pair.views:
        print(f"  {view.scene}/{view.tag}{'' if view.mask else ' (no mask: its sky cannot be removed)'}")
    if options.create_config is not None:
        _create_config(options, pair)
    return 0


def _rendered_pair(options: argparse.Namespace) -> PairFiles:
    from pytest_overfit.two_view.pair.create import create_pair
    from pytest_overfit.two_view.pair.synthetic import render_source

    with tempfile.TemporaryDirectory(prefix="pytest-overfit-") as folder:
        source = render_source(folder, seed=options.seed or 0)
        index, overwrite = options.pair_index, options.overwrite
        return create_pair(*source, options.output_root, pair_index=index, overwrite=overwrite)


def _cut_pair(options: argparse.Namespace) -> PairFiles:
    from pytest_overfit.errors import PairError
    from pytest_overfit.two_view.pair.create import create_pair

    root = options.source_root or Path(_DEFAULT_SOURCE)
    index = options.source_npz or Path("train.npz")
    if not root.is_dir():
        found = "no such folder"
        hint = "pytest-overfit pair create --render --create-config renders a pair, and needs no data"
        raise PairError(found, where=root, allowed="the scenes of AerialMegaDepth: --source-root DIR", hint=hint)
    return create_pair(
        root,
        options.source_seg_root or root.with_name(f"{root.name}_seg"),
        index if options.source_npz and index.exists() else root / index,
        options.output_root,
        pair_index=options.pair_index,
        overwrite=options.overwrite,
        follow_links=_followed(options),
    )


def _create_config(options: argparse.Namespace, pair: PairFiles) -> None:
    from pytest_overfit.two_view.pair.create import CONFIG_NAME, write_config

    path = pair.root / CONFIG_NAME if options.create_config == Path() else options.create_config
    if write_config(pair, path, overwrite=options.overwrite, style=options.config_style):
        print(f"next: pytest --overfit-config {path}")
    else:
        print(f"{path} was there before, with other content: kept (--overwrite replaces it)")


def _check(options: argparse.Namespace, _: argparse.ArgumentParser) -> int:
    from pytest_overfit.two_view.pair.check import check_pair
    from pytest_overfit.two_view.pair.create import SEGMENTATION, SPLITS
    from pytest_overfit.two_view.pair.index import locate_pair

    root, split, masks = options.folder, options.folder / SPLITS[0], options.folder / SEGMENTATION
    pair = locate_pair(root, split, masks, 0, follow_links=_followed(options))
    if broken := _broken_files(pair):
        for error in broken:
            print(f"problem: {error}")
        print(f"{len(broken)} problem(s): nothing else is checked before every file can be read")
        return 1
    report = check_pair(pair, remove_sky=options.remove_sky)
    _print_batch(options, split, masks)
    print("checks, on the files as they are:")
    for check in report.checks:
        verdict = "ok    " if check.problem is None else "FAILED"
        print(f"  {verdict} {check.name}: {check.observed}")
    for line in _opencv_lines(pair.views[0].depth):
        print(line)
    for line in _problem_lines(report, pair, options):
        print(line)
    print("the pair is sound" if not report.problems else f"{len(report.problems)} problem(s)")
    return 1 if report.problems else 0


def _problem_lines(report: PairReport, pair: PairFiles, options: argparse.Namespace) -> Iterator[str]:
    """Every problem, what says more of it, and the one change that makes the views agree, where there is one."""
    from pytest_overfit.two_view.inspections import cause_of_pair

    for check in report.checks:
        if check.problem is not None:
            yield f"problem: {check.problem}"
        if check.problem is not None and check.cause:
            yield f"  pytest-overfit explain {check.cause}"
    cause = cause_of_pair(pair, remove_sky=options.remove_sky) if report.problems and not report.missing else None
    if cause is not None:
        yield from (*cause.text().splitlines(), f"  pytest-overfit explain {cause.id}")


def _broken_files(pair: PairFiles) -> list[PairError]:
    """Every file of a pair that cannot be read, or does not fit the others of its view."""
    from pytest_overfit.errors import PairError
    from pytest_overfit.two_view.pair.readers import read_camera, read_depth, read_image, read_labels, read_view

    found: dict[str, PairError] = {}
    for view in pair.views:
        looks: list[Callable[[], Any]] = [
            partial(read_image, view.image), partial(read_depth, view.depth), partial(read_camera, view.camera),
            *([partial(read_labels, view.mask)] if view.mask else []), partial(read_view, view),
        ]  # fmt: skip
        for look in looks:
            try:
                look()
            except PairError as error:
                found[str(error)] = error
    return list(found.values())


def _show(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from pytest_overfit.two_view.pair.create import SEGMENTATION, SPLITS
    from pytest_overfit.two_view.pair.index import locate_pair
    from pytest_overfit.two_view.pictures.pair_panels import views_of_batch, views_on_disk
    from pytest_overfit.two_view.pictures.pair_sheet import contact_sheet, save_sheet

    output = options.output or options.folder / _SHEET_NAME
    if output.suffix.lower() != ".png":
        parser.error(f"--output {output}: the sheet is a PNG file, name it so")
    split, masks = options.folder / SPLITS[0], options.folder / SEGMENTATION
    pair = locate_pair(options.folder, split, masks, 0, follow_links=_followed(options))
    if options.img_size is None:
        views = views_on_disk(pair, remove_sky=options.remove_sky)
    else:
        views = views_of_batch(pair, **_batch_options(options))
    shown = "the files as they are" if options.img_size is None else "as the loader hands it out"
    sheet = contact_sheet(views, title=pair.seq_name, subtitle=f"{options.folder.resolve()}, {shown}")
    save_sheet(output, sheet)
    height, width = sheet.panel.shape[:2]
    print(f"{output}: {width} x {height} pixels")
    print(sheet.report.headline())
    for problem in sheet.report.problems:
        print(f"problem: {problem}")
    return 0


def _print_batch(options: argparse.Namespace, split: Path, masks: Path) -> None:
    """What the loader hands to a model: the shape of every key, and the valid depth of every image in metres."""
    from pytest_overfit.two_view.data.dataset import PairDataset, build_loader

    links = _followed(options)
    dataset = PairDataset(options.folder, split, masks, follow_links=links, **_batch_options(options))
    loader = build_loader(dataset)
    batch: dict[str, Any] = next(iter(loader))
    print(f"pairs: {len(dataset)}")
    print(f"loader length: {len(loader)}")
    print(f"seq_name: {', '.join(batch['seq_name'])}")
    print("batch:")
    for key, value in batch.items():
        print(f"  {key}: {tuple(value.shape) if hasattr(value, 'shape') else value}")
    for view, (depth, mask) in enumerate(zip(batch["depths"][0], batch["point_masks"][0], strict=True)):
        valid = depth[mask]
        span = f"[{float(valid.min()):.2f}, {float(valid.max()):.2f}] m" if valid.numel() else "no depth"
        share = 100 * valid.numel() / depth.numel()
        print(f"  image {view}: {valid.numel()}/{depth.numel()} valid depths ({share:.1f} %) in {span}")


def _opencv_lines(path: Path) -> list[str]:
    """Whether cv2.imread reads the .exr: loaders of other projects use it, and some versions return None."""
    try:
        import cv2
    except ImportError:  # without the system libraries that it needs
        return []

    with _environment(_EXR_SWITCH, "1"):
        try:
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            pixels = None
    if pixels is None:
        return [
            f"note: OpenCV {cv2.__version__} cannot read {path.name}, even with {_EXR_SWITCH}=1 (pytest-overfit does "
            "not need it; a loader of your own that calls cv2.imread does: opencv-python 4.x can)"
        ]
    return [f"note: OpenCV {cv2.__version__} reads {path.name} as {pixels.dtype} with {_EXR_SWITCH}=1"]


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
