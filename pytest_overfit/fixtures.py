"""What the default fixtures build, and where it is kept so that the items of one config file share it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pytest_overfit.collect import CONFIGS, ConfigFile, options_of
from pytest_overfit.config.schema import OverfitConfig, SplitConfig
from pytest_overfit.errors import ConfigError, OverfitError, PairError
from pytest_overfit.options import absolute
from pytest_overfit.pair.layout import PairFiles
from pytest_overfit.report.tensorboard import DEFAULT_FOLDER, TensorBoardLog, run_folder
from pytest_overfit.result import OverfitResult
from pytest_overfit.suggest import nearest
from pytest_overfit.terminal import RUN, RunNote, keep_interrupted, progress_for

if TYPE_CHECKING:
    from torch import nn

Value = TypeVar("Value")
KEYWORDS = ("config",)  # of the marker
DIFFERENCES = pytest.StashKey[tuple[str, ...]]()


def once(request: pytest.FixtureRequest, name: str, build: Callable[[], Value]) -> Value:
    """Builds once per config file, and again for every other test; an error is kept and raised again too."""
    file = request.node.parent
    if not isinstance(file, ConfigFile):
        return told(build)
    if name not in file.overfit_built:
        try:
            file.overfit_built[name] = (build(), None)
        except Exception as error:
            file.overfit_built[name] = (None, error)
    value, failure = file.overfit_built[name]
    if failure is not None:
        raise failure
    return value  # type: ignore[no-any-return]


def told(build: Callable[[], Value]) -> Value:
    """What ``build`` gives to an ordinary test: there an ``OverfitError`` is shown without the frames it came through.

    The items of a config file get the error itself, and make a finding of it.
    """
    try:
        return build()
    except OverfitError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def config_of(request: pytest.FixtureRequest) -> OverfitConfig:
    """The config behind a test: its file's, its marker's, or the only one of the session."""
    file = request.node.parent
    return file.overfit_config if isinstance(file, ConfigFile) else told(lambda: _config_of_test(request))


def _config_of_test(request: pytest.FixtureRequest) -> OverfitConfig:
    node = request.node
    from pytest_overfit.config.loading import load_config

    marker = node.get_closest_marker("overfit")
    if marker is not None and (wrong := [*map(repr, marker.args), *sorted(set(marker.kwargs) - set(KEYWORDS))]):
        near = nearest(wrong[0], KEYWORDS)
        raise ConfigError(
            f"argument {wrong[0]}",
            where="@pytest.mark.overfit",
            allowed="config='path/to/config.yaml'",
            hint=f"did you mean {near!r}?" if near else None,
        )
    if marker is not None and "config" in marker.kwargs:
        return load_config(
            absolute(str(marker.kwargs["config"]), node.path.parent), options_of(request.config).overrides
        )
    configs = list(request.config.stash.get(CONFIGS, {}).values())
    if len(configs) == 1:
        return configs[0]
    raise ConfigError(
        f"{len(configs)} configs to choose from",
        where=node.nodeid,
        allowed="exactly one",
        hint="name it: @pytest.mark.overfit(config='path/to/config.yaml'), or give one --overfit-config",
    )


def pair(request: pytest.FixtureRequest, config: OverfitConfig, tmp_path_factory: pytest.TempPathFactory) -> PairFiles:
    """The pair in place (``dataset``), or cut into a temporary folder out of a given or a rendered source."""

    def build() -> PairFiles:
        wanted = config.overfit.pair
        if wanted.source == "dataset":
            from pytest_overfit.pair.index import locate_pair

            split = config.train
            assert split.root is not None
            assert split.split_file is not None
            return locate_pair(split.root, split.split_file, split.segmentation_root, wanted.pair_index)
        from pytest_overfit.pair.create import create_pair

        folder = tmp_path_factory.mktemp("overfit_pair")
        if wanted.source == "render":
            from pytest_overfit.pair.render import render_source

            source = render_source(folder / "source", seed=wanted.seed, width=wanted.width, height=wanted.height)
            return create_pair(source.source_root, source.source_seg_root, source.source_npz, folder / "pair")
        assert wanted.source_root is not None
        return create_pair(
            wanted.source_root,
            wanted.source_seg_root,
            wanted.source_npz or wanted.source_root / "train.npz",
            folder / "pair",
            pair_index=wanted.pair_index,
        )

    return once(request, "pair", build)


def dataset(config: OverfitConfig, split: SplitConfig, files: PairFiles, *, split_file: Path | None = None) -> Any:
    """The Dataset of one split over the files of the pair."""
    from pytest_overfit.data.dataset import PairDataset

    return PairDataset(
        files.root,
        split_file or files.split_file,
        files.segmentation_root,
        img_size=split.img_size,
        patch_size=split.patch_size,
        aspect_ratio=split.aspect_ratio,
        remove_sky=split.remove_sky,
        max_depth=split.max_depth,
        depth_percentile=split.depth_percentile,
        half_pixel_depth=config.overfit.half_pixel_depth,
    )


def loader(config: OverfitConfig, files: PairFiles, data: Any) -> Any:
    """The DataLoader of the one pair."""
    from pytest_overfit.data.loader import build_loader

    return build_loader(data, pair_index=files.pair_index, num_workers=config.num_workers)


def batch(request: pytest.FixtureRequest, train_loader: Any) -> Mapping[str, Any]:
    """The normalised first batch; what a second draw differs in is kept for the verdict."""
    from pytest_overfit.run.sample import draw_batch

    drawn, differences = once(request, "batch", lambda: draw_batch(train_loader))
    request.node.stash[DIFFERENCES] = differences
    return drawn


def val_batch(request: pytest.FixtureRequest, config: OverfitConfig) -> Mapping[str, Any] | None:
    """The normalised batch of the validation split: of the cut pair's ``val.npz``, or of ``data.val`` in place."""

    def build() -> Mapping[str, Any] | None:
        from pytest_overfit.pair.index import locate_pair
        from pytest_overfit.run.sample import draw_batch

        split = config.val
        if split is None:
            return None
        if config.overfit.pair.source == "dataset":
            assert split.root is not None
            assert split.split_file is not None
            files = locate_pair(split.root, split.split_file, split.segmentation_root, config.overfit.pair.pair_index)
            data = dataset(config, split, files)
        else:
            files = request.getfixturevalue("overfit_pair")
            data = dataset(config, split, files, split_file=files.root / "val.npz")
        return draw_batch(loader(config, files, data))[0]

    return once(request, "val_batch", build)


def result(request: pytest.FixtureRequest, config: OverfitConfig) -> OverfitResult:
    """One bounded run and its verdict, TensorBoard files and live progress included."""

    def build() -> OverfitResult:
        from pytest_overfit.api import overfit_config
        from pytest_overfit.run.sample import Sample

        model = checked_model(request.getfixturevalue("overfit_model"))
        loss = request.getfixturevalue("overfit_loss")
        train = request.getfixturevalue("overfit_batch")
        val = request.getfixturevalue("overfit_val_batch") if config.val is not None else None
        sample = Sample(train, val, request.node.stash.get(DIFFERENCES, ()))
        folder, note = run_folder(log_dir_of(request, config), run_name(request, config))
        board = TensorBoardLog(folder, every=config.logging.log_freq, keys=config.logging.scalar_keys)
        progress = progress_for(request.config, config)
        try:
            verdict = overfit_config(
                config, model, sample, loss=loss, observers=[board, *progress], workers=worker_count()
            )
        finally:
            board.close()
            for line in progress:
                line.close()
        run = RunNote.of(verdict.record, folder.parent, note)
        request.node.parent.stash[RUN] = run
        if verdict.record.stop == "interrupted":
            keep_interrupted(request.node, verdict, run)
            raise KeyboardInterrupt
        return verdict

    return once(request, "result", build)


def checked_model(model: Any) -> nn.Module:
    """The module itself, or the one that a factory returns.

    Raises:
        OverfitError: it is neither.
    """
    from torch import nn

    built = model() if callable(model) and not isinstance(model, nn.Module) else model
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

    report = check_pair(
        files,
        remove_sky=config.train.remove_sky,
        max_depth=config.train.max_depth,
        depth_percentile=config.train.depth_percentile,
    )
    if report.problems:
        raise PairError(
            "; ".join(report.problems),
            where=files.seq_name,
            hint=f"pytest-overfit pair check {files.root} shows the numbers",
        )
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


def log_dir_of(request: pytest.FixtureRequest, config: OverfitConfig) -> Path:
    """--overfit-log-dir, else logging.log_dir, else a folder where pytest was started."""
    given = options_of(request.config).log_dir
    return given or config.logging.log_dir or request.config.invocation_params.dir / DEFAULT_FOLDER


def run_name(request: pytest.FixtureRequest, config: OverfitConfig) -> str:
    """The experiment's name for a config file, the test's id for a marked test."""
    return config.exp_name if isinstance(request.node.parent, ConfigFile) else str(request.node.nodeid)


def worker_count() -> int:
    """How many pytest-xdist workers share this machine."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
