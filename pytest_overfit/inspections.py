"""What the first items of a config look at before anything is trained: the model, the pair, the loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.errors import OverfitError, PairError

if TYPE_CHECKING:
    from torch import nn

    from pytest_overfit.config.schema import OverfitConfig
    from pytest_overfit.pair.layout import PairFiles
    from pytest_overfit.run.trainer_data import TrainerData


def checked_model(model: Any) -> nn.Module:
    """The module itself, or the one that a factory returns.

    Raises:
        OverfitError: it is neither.
    """
    from torch import nn

    from pytest_overfit.run.subject import is_factory

    built = model() if is_factory(model) else model
    if not isinstance(built, nn.Module):
        raise OverfitError(
            f"a {type(built).__name__} where a model is wanted",
            where="overfit_model",
            allowed="a torch.nn.Module, or a callable without arguments that returns one",
        )
    return built


def inspect_pair(config: OverfitConfig, files: PairFiles | TrainerData) -> str:
    """One line about a pair that holds: its files, or the views of the batch that a trainer's own classes make of it.

    Raises:
        PairError: a file cannot be read, or what was read contradicts itself; all problems in one error.
    """
    from pytest_overfit.pair.check import check_pair
    from pytest_overfit.pair.layout import PairFiles

    if not isinstance(files, PairFiles):
        return _inspect_views(files)
    split = config.train
    limits: dict[str, Any] = {"max_depth": split.max_depth, "depth_percentile": split.depth_percentile}
    report = check_pair(files, remove_sky=split.remove_sky, **limits)
    if report.problems:
        hint = f"pytest-overfit pair check {files.root} shows the numbers"
        if not split.remove_sky and not check_pair(files, remove_sky=True, **limits).problems:
            hint = "set remove_sky: true: the sky carries depth, and without it the pair holds (cause: sky, proven)"
        raise PairError("; ".join(report.problems), where=files.seq_name, hint=hint)
    return f"{files.seq_name}: {report.headline()}"


def _inspect_views(data: TrainerData) -> str:
    """The views of the first sample against the first view, as the loader gives them, before they are normalised."""
    from pytest_overfit.pair.check import CheckedView, check_views

    batch = data.draw(0)[0]
    keys = ("images", "depths", "intrinsics", "extrinsics")
    if missing := [key for key in keys if key not in batch]:
        raise OverfitError(
            f"no key {', '.join(missing)} among {', '.join(map(str, batch))}",
            where=data.where,
            allowed="views with depth and cameras",
            hint="see ::loader",
        )
    arrays = [batch[key][0].float().cpu().numpy() for key in keys]
    report = check_views([CheckedView(f"view {i}", *view) for i, view in enumerate(zip(*arrays, strict=True))])
    if report.problems:
        raise PairError(
            "; ".join(report.problems),
            where=f"{data.where}, the first batch",
            hint="look at the files that the loader opens, and at its conventions: world2cam, OpenCV axes, z-depth",
        )
    return f"{len(report.frames)} views of a batch: {report.headline()}"


def inspect_loader(config: OverfitConfig, train_loader: Any) -> str:
    """One line about a loader whose batch is as the config says.

    Raises:
        OverfitError: the loader is empty, or its batch is not; all problems in one error.
    """
    from pytest_overfit.data.contract import batch_problems
    from pytest_overfit.run.sample import first_batch

    drawn = first_batch(train_loader)
    height, width, frames = _expected_shape(config, drawn)
    problems = batch_problems(drawn, height=height, width=width, frames=frames)
    if problems:
        raise OverfitError(
            "; ".join(problems),
            where=type(train_loader).__name__,
            hint="pytest-overfit pair check prints the batch of the embedded loader to compare with",
        )
    return f"images {tuple(drawn['images'].shape)}, {len(drawn)} keys"


def _expected_shape(config: OverfitConfig, batch: Mapping[str, Any]) -> tuple[int, int, int]:
    """Height, width and frames: the config's; for a trainer's own classes, who may draw them, those of the images."""
    shape: Sequence[int] = getattr(batch.get("images"), "shape", ())
    if config.trainer is not None and len(shape) == 5:
        return int(shape[3]), int(shape[4]), int(shape[1])
    return config.train.height, config.train.width, 2
