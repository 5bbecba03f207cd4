"""What the first items of a config look at before anything is trained: the model, the pair, the loader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_overfit.errors import OverfitError, PairError

if TYPE_CHECKING:
    from torch import nn

    from pytest_overfit.config.schema import OverfitConfig
    from pytest_overfit.pair.layout import PairFiles


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


def inspect_pair(config: OverfitConfig, files: PairFiles) -> str:
    """One line about a pair that holds.

    Raises:
        PairError: a file cannot be read, or what was read contradicts itself; all problems in one error.
    """
    from pytest_overfit.pair.check import check_pair

    split = config.train
    limits: dict[str, Any] = {"max_depth": split.max_depth, "depth_percentile": split.depth_percentile}
    report = check_pair(files, remove_sky=split.remove_sky, **limits)
    if report.problems:
        hint = f"pytest-overfit pair check {files.root} shows the numbers"
        if not split.remove_sky and not check_pair(files, remove_sky=True, **limits).problems:
            hint = "set remove_sky: true: the sky carries depth, and without it the pair holds (cause: sky, proven)"
        raise PairError("; ".join(report.problems), where=files.seq_name, hint=hint)
    return f"{files.seq_name}: {report.headline()}"


def inspect_loader(config: OverfitConfig, train_loader: Any) -> str:
    """One line about a loader whose batch is as the config says.

    Raises:
        OverfitError: the loader is empty, or its batch is not; all problems in one error.
    """
    from pytest_overfit.data.contract import batch_problems
    from pytest_overfit.run.sample import first_batch

    drawn = first_batch(train_loader)
    split = config.train
    problems = batch_problems(drawn, height=split.height, width=split.width, frames=2)
    if problems:
        raise OverfitError(
            "; ".join(problems),
            where=type(train_loader).__name__,
            hint="pytest-overfit pair check prints the batch of the embedded loader to compare with",
        )
    return f"images {tuple(drawn['images'].shape)}, {len(drawn)} keys"
