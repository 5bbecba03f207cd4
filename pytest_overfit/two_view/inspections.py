"""What the first items of a config look at before anything is trained: the model, the pair, the loader."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.errors import OverfitError, PairError
from pytest_overfit.errors.asking import Questions
from pytest_overfit.errors.suggest import from_here, nearest

if TYPE_CHECKING:
    from torch import nn

    from pytest_overfit.diagnose.cause import Cause
    from pytest_overfit.trainer.config import OverfitConfig
    from pytest_overfit.two_view.data.trainer_data import TrainerData
    from pytest_overfit.two_view.pair.pair_files import PairFiles

MOST_NAMES = 10_000  # of a folder
MEANT = "did you mean "

GIVEN: Mapping[str, str] = {
    "overfit_pair": "the files of a pair, pytest_overfit.two_view.pair.pair_files.PairFiles",
    "overfit_dataset": "a torch.utils.data.Dataset of one sample",
    "overfit_loader": "a DataLoader, or what else hands out batches",
    "overfit_batch": "a mapping of tensors: images, depths, extrinsics, intrinsics, ...",
    "overfit_loss": "a callable, loss(predictions, batch)",
}


def checked_model(model: Any) -> nn.Module:
    """The module itself, or the one that a factory returns.

    Raises:
        OverfitError: it is neither.
    """
    from torch import nn

    from pytest_overfit.run.subject import is_factory

    built = model() if is_factory(model) else model
    if not isinstance(built, nn.Module):
        allowed = "a torch.nn.Module, or a callable without arguments that returns one"
        raise OverfitError(f"a {type(built).__name__} where a model is wanted", where="overfit_model", allowed=allowed)
    return built


def not_none(value: Any, fixture: str) -> Any:
    """What a fixture of ours, or one in its place, has given.

    Raises:
        OverfitError: nothing: most likely it does not return what it makes.
    """
    if value is None:
        hint = f"return it at the end of `def {fixture}(...)` in your conftest.py"
        raise OverfitError("the fixture gives None", where=fixture, allowed=GIVEN[fixture], hint=hint)
    return value


def refuse_missing(config: OverfitConfig, split: str) -> None:
    """Looks at the paths of a config that the pair of a split comes from.

    Args:
        split: ``train`` or ``val``.

    Raises:
        PairError: nothing is at one of them; every key, its value, and the nearest that is there.
    """
    of_split = _paths(config, split)
    missing = {path: is_folder for path, is_folder in of_split.values() if not _is_there(path, is_folder)}
    missing = {path: kind for path, kind in missing.items() if not any(above in missing for above in path.parents)}
    if not missing:
        return
    both = {**_paths(config, "train"), **_paths(config, "val")}
    keys = {key: path for key, (path, _) in both.items() if path in missing}
    hints = [nearest_path(path) for path in missing]
    if all(hint.startswith(MEANT) for hint in hints):
        near = dict(zip(missing, (hint.removeprefix(MEANT).removesuffix("?") for hint in hints), strict=True))
        hints = [" ".join(f"--overfit-set {key}={shlex.quote(near[path])}" for key, path in keys.items())]
    found = "; ".join(
        f"no such {'folder' if is_folder else 'file'}: {from_here(str(path))}" for path, is_folder in missing.items()
    )
    where = f"{' and '.join(keys)} of {config.path}"
    raise PairError(found, where=where, allowed="only paths that exist", hint="; ".join(dict.fromkeys(hints)))


def named_in_vain(config: OverfitConfig) -> Iterator[OverfitError]:
    """What a config names and is not there, or does not fit: paths, classes, their arguments. Nothing is built."""
    for split in ("train", "val"):
        try:
            refuse_missing(config, split)
        except PairError as error:
            yield error
    yield from unfit(config, {"model": config.model, "loss": config.loss})
    yield from unfit_optimizer(config)


def unfit_optimizer(config: OverfitConfig) -> Iterator[OverfitError]:
    """The same of its optimizer and its schedules alone."""
    from pytest_overfit.trainer.build import LR_SCHEDULE, WEIGHT_DECAY_SCHEDULE

    schedules = {LR_SCHEDULE: config.lr_schedule, WEIGHT_DECAY_SCHEDULE: config.weight_decay_schedule}
    yield from unfit(config, {"optim.optimizer": config.optimizer, **schedules})


def unfit(config: OverfitConfig, sections: Mapping[str, Mapping[str, Any] | None]) -> Iterator[OverfitError]:
    """Of each of some sections that its class cannot be imported, or does not take its keys."""
    from pytest_overfit.trainer.build import at_home
    from pytest_overfit.trainer.instantiate import expect_target

    for where, node in sections.items():
        try:
            with at_home(config, group=False):
                expect_target(node or {}, where=where)
        except OverfitError as error:
            yield error


def _paths(config: OverfitConfig, split: str) -> dict[str, tuple[Path, bool]]:
    """Key -> the path that it names, and whether that is a folder."""
    source, named = config.overfit.pair, config.train if split == "train" else config.val
    if config.trainer is not None or named is None:
        return {}
    prefix = "overfit.pair"
    found = {"source_root": (source.source_root, True), "source_seg_root": (source.source_seg_root, True)}
    found["source_npz"] = (source.source_npz, False)
    if source.source == "dataset":
        prefix = f"data.{split}.dataset.dataset_configs.0"
        masks = named.segmentation_root if named.remove_sky else None
        found = {
            "ROOT": (named.root, True),
            "split_file": (named.split_file, False),
            "segmentation_root": (masks, True),
        }
    elif source.source != "cut":
        return {}
    return {f"{prefix}.{key}": (path, is_folder) for key, (path, is_folder) in found.items() if path is not None}


def _is_there(path: Path, is_folder: bool) -> bool:
    return os.path.isdir(path) if is_folder else os.path.exists(path)  # noqa: PTH110, PTH112 - no error where one may not look


def nearest_path(path: Path) -> str:
    """What to do about a path that is not there: the nearest one that is, or how far it goes.

    Example:
        >>> nearest_path(Path("/no_such_folder/train.npz"))
        '/ is there, and has no no_such_folder'
    """
    there, missing = path, ""
    while not os.path.isdir(there):  # noqa: PTH112
        there, missing = there.parent, there.name
    rest = path.relative_to(there / missing)
    try:
        names = [entry.name for entry in itertools.islice(os.scandir(there), MOST_NAMES)]
    except OSError:
        names = []
    guess = nearest(missing, names)
    if guess is None:
        return f"{there} is there, and has no {missing}"
    return f"{MEANT}{there / guess / rest}?"


@contextmanager
def hinted(hint: str) -> Iterator[None]:
    """What to do next about an error of a file that does not say so itself."""
    try:
        yield
    except PairError as error:
        raise error.at(error.where, hint=hint) from None


def look_at(root: Path, split_file: Path) -> str:
    """What shows more of a pair: the command, where its index is where that looks for it.

    Example:
        >>> look_at(Path("my pair"), Path("my pair/train.npz"))
        "pytest-overfit pair check 'my pair' shows every file of it"
    """
    from pytest_overfit.two_view.pair.create import SPLITS

    if split_file != root / SPLITS[0]:
        return f"look at that file; the pair is in {root}, its index is {split_file}"
    return f"pytest-overfit pair check {shlex.quote(str(root))} shows every file of it"


def inspect_pair(config: OverfitConfig, files: PairFiles | TrainerData) -> str:
    """One line about a pair that holds: its files, or the views of the batch that a trainer's own classes make of it.

    Raises:
        PairError: a file cannot be read, or what was read contradicts itself; all problems in one error.
    """
    from pytest_overfit.two_view.diagnose.pair_causes import files_of
    from pytest_overfit.two_view.pair.check import check_pair
    from pytest_overfit.two_view.pair.pair_files import PairFiles

    if not isinstance(files, PairFiles):
        return _inspect_views(files)
    split = config.train
    limits: dict[str, Any] = {"max_depth": split.max_depth, "depth_percentile": split.depth_percentile}
    with hinted(look_at(files.root, files.split_file)):
        report = check_pair(files, remove_sky=split.remove_sky, **limits)
    if report.problems:
        told = dict.fromkeys(check.do for check in report.checks if check.do)
        hint = "; ".join(filter(None, told)) or f"pytest-overfit pair check {files.root} shows the numbers"
        if not split.remove_sky and not check_pair(files, remove_sky=True, **limits).problems:
            hint = "set remove_sky: true: the sky carries depth, and without it the pair holds (cause: sky, proven)"
        places = dict.fromkeys(from_here(str(check.place)) for check in report.checks if check.place)
        where = " and ".join(map(str, report.missing)) or " and ".join(places) or files.seq_name
        problems = list(report.problems)
        if not report.missing and (cause := cause_of_pair(files, remove_sky=split.remove_sky, **limits)) is not None:
            problems.insert(0, f"{cause.observed} (cause: {cause.id}, {cause.strength})")
            at_fault = " and ".join(from_here(str(path)) for path in files_of(cause, files.views))
            where, hint = f"{cause.where}, of {at_fault}", cause.advice
        raise PairError("; ".join(problems), where=where, hint=hint)
    return f"{files.seq_name}: {report.headline()}"


def cause_of_pair(files: PairFiles, *, remove_sky: bool, **limits: Any) -> Cause | None:
    """What of the files to change, where one thing makes the views agree; the verdict stands without it."""
    from pytest_overfit.two_view.diagnose.pair_causes import cause_of_views
    from pytest_overfit.two_view.pair.check import checked_view
    from pytest_overfit.two_view.pair.readers import read_view

    views = [checked_view(read_view(view), remove_sky=remove_sky, **limits) for view in files.views]
    look: Callable[[], Cause | None] = lambda: cause_of_views(views)  # noqa: E731
    return Questions().ask("which change makes the views agree", look, otherwise=None)


def _inspect_views(data: TrainerData) -> str:
    """The views of the first sample against the first view, as the loader gives them, before they are normalised."""
    from pytest_overfit.two_view.data.contract import DUMMY
    from pytest_overfit.two_view.diagnose.source_causes import causes_of_source
    from pytest_overfit.two_view.pair.check import CheckedView, check_views

    batch = data.draw(0)[0]
    keys = ("images", "depths", "intrinsics", "extrinsics")
    if missing := [key for key in keys if key not in batch]:
        found = f"no key {', '.join(missing)} among {', '.join(map(str, batch))}"
        raise OverfitError(found, where=data.where, allowed="views with depth and cameras", hint="see ::loader")
    if not batch["images"].any() and not batch["depths"].any():  # what two views look like in it is an echo
        raise PairError(DUMMY, where=f"{data.where}, the first batch", allowed="a pair that was loaded")
    arrays = [batch[key][0].float().cpu().numpy() for key in keys]
    report = check_views([CheckedView(f"view {i}", *view) for i, view in enumerate(zip(*arrays, strict=True))])
    causes, not_asked = causes_of_source(data.compared)
    if causes:
        first = causes[0]
        raise PairError(
            "; ".join((f"{first.observed} (cause: {first.id}, {first.strength})", *report.problems)),
            where=f"{first.where}, of {data.where}",
            allowed="a batch that is what its files say",
            hint=first.advice,
        )
    if report.problems:
        hint = "look at the files that the loader opens, and at its conventions: world2cam, OpenCV axes, z-depth"
        raise PairError("; ".join(report.problems), where=f"{data.where}, the first batch", hint=hint)
    return "; ".join([f"{len(report.frames)} views of a batch: {report.headline()}", *(n.text() for n in not_asked)])


def inspect_loader(config: OverfitConfig, train_loader: Any) -> str:
    """One line about a loader whose batch is as the config says.

    Raises:
        OverfitError: the loader is empty, or its batch is not; all problems in one error.
    """
    from pytest_overfit.run.sample import first_batch
    from pytest_overfit.two_view.data.contract import batch_problems

    drawn = first_batch(train_loader)
    height, width, frames = _expected_shape(config, drawn)
    problems = batch_problems(drawn, height=height, width=width, frames=frames)
    if problems:
        hint = "pytest-overfit pair check prints the batch of the embedded loader to compare with"
        raise OverfitError("; ".join(problems), where=type(train_loader).__name__, hint=hint)
    return f"images {tuple(drawn['images'].shape)}, {len(drawn)} keys"


def _expected_shape(config: OverfitConfig, batch: Mapping[str, Any]) -> tuple[int, int, int]:
    """Height, width and frames: the config's; for a trainer's own classes, who may draw them, those of the images."""
    shape: Sequence[int] = getattr(batch.get("images"), "shape", ())
    if config.trainer is not None and len(shape) == 5:
        return int(shape[3]), int(shape[4]), int(shape[1])
    return config.train.height, config.train.width, 2
