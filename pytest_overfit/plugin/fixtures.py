"""What the default fixtures build, and where it is kept so that the items of one config file share it."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.plugin.collection import CONFIGS, ConfigFile, as_session, marker_layer, options_of, remember_secrets
from pytest_overfit.plugin.items import BEGUN, ends_session, given
from pytest_overfit.plugin.options import absolute
from pytest_overfit.plugin.outcomes import CALL, verdicts_of
from pytest_overfit.plugin.processes import agreed_verdict, limited_stage, place_of
from pytest_overfit.plugin.terminal import RUN, keep_call, keep_interrupted, keep_run
from pytest_overfit.plugin.watchers import Watchers
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.phases import TRAINING
from pytest_overfit.trainer.config import OverfitConfig, SplitConfig
from pytest_overfit.two_view.inspections import checked_model, hinted, look_at, not_none, refuse_missing
from pytest_overfit.two_view.pair.layout import PairFiles

Value = TypeVar("Value")
DRAWN = pytest.StashKey[Any]()  # the Sample of the default batch, without its validation batch
MODEL_NOTES = pytest.StashKey[tuple[str, ...]]()
ANY_MODEL_RUN = pytest.StashKey[bool]()  # this test's run is under no config
DEFAULT_MODEL = pytest.StashKey[object]()
PAIR = pytest.StashKey[PairFiles]()


class NoConfig(pytest.fail.Exception):  # type: ignore[misc, name-defined]
    """No config was named for a test, and there is not exactly one in the session."""


class NothingGiven(pytest.fail.Exception):  # type: ignore[misc, name-defined]
    """Neither a test nor a fixture nor a config gives this piece of a run."""


def once(request: pytest.FixtureRequest, name: str, build: Callable[[], Value]) -> Value:
    """Builds once per config file, and again for every other test; an error is kept and raised again too."""
    file = request.node.parent
    if not isinstance(file, ConfigFile):
        return told(build)
    if name not in file.overfit_built:
        try:
            file.overfit_built[name] = (build(), None)
        except BaseException as error:  # a time-out of pytest-timeout is one too
            if not ends_session(error):
                file.overfit_built[name] = (None, error)
            raise
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
    found = told(lambda: own_config(request))
    if found is not None:
        return found
    configs = list(request.config.stash.get(CONFIGS, {}).values())
    if len(configs) == 1:
        return configs[0]
    error = ConfigError(
        f"{len(configs)} configs to choose from",
        where=request.node.nodeid,
        allowed="exactly one",
        hint="name it: @pytest.mark.overfit(config='path/to/config.yaml'), or give one --overfit-config",
    )
    raise NoConfig(str(error), pytrace=False)


def own_config(request: pytest.FixtureRequest) -> OverfitConfig | None:
    """The config of a test's file or marker; None where neither names one."""
    node = request.node
    if isinstance(node.parent, ConfigFile):
        return node.parent.overfit_config
    layer = marker_layer(node)
    if layer is None or layer.config is None:
        return None
    from pytest_overfit.trainer.loading import load_config

    options = options_of(request.config)
    path = absolute(layer.config, node.path.parent)
    loaded = load_config(path, options.overrides, ini=options.ini_overrides, settings=[layer])
    remember_secrets(request.config, loaded)
    return as_session(request.config, [loaded])[0]


def config_or_none(request: pytest.FixtureRequest) -> OverfitConfig | None:
    """The config that a test runs under, or None where it runs any model.

    A test with a marker runs under the config that the marker names; one without under the only one of the session.
    """
    if request.node.stash.get(ANY_MODEL_RUN, False):
        return None
    marked = request.node.get_closest_marker("overfit") is not None
    if marked and own_config(request) is None:
        return None
    try:
        return request.getfixturevalue("overfit_config")  # type: ignore[no-any-return]  # which may be overridden
    except NoConfig:
        return None


def pair(request: pytest.FixtureRequest, config: OverfitConfig, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The pair in place (``dataset``), or cut into a temporary folder out of a given or a rendered source.

    Under a trainer's own data class there are no files to point at: what hands out its batches.
    """
    if config.trainer is not None:
        from pytest_overfit.run.trainer_data import TrainerData

        return once(request, "trainer_data", lambda: TrainerData(config))

    @limited_stage(request, config, "pair")
    def build() -> PairFiles:
        refuse_missing(config, "train")
        wanted = config.overfit.pair
        if wanted.source == "dataset":
            from pytest_overfit.two_view.pair.index import locate_pair

            split = config.train
            assert split.root is not None
            assert split.split_file is not None
            where = (split.root, split.split_file, split.segmentation_root)
            with hinted(look_at(split.root, split.split_file)):
                return locate_pair(*where, wanted.pair_index, follow_links=wanted.follow_links)
        from pytest_overfit.two_view.pair.create import create_pair

        folder = tmp_path_factory.mktemp("overfit_pair")
        if wanted.source == "render":
            from pytest_overfit.two_view.pair.synthetic import render_source

            source = render_source(folder / "source", seed=wanted.seed, width=wanted.width, height=wanted.height)
            return create_pair(source.source_root, source.source_seg_root, source.source_npz, folder / "pair")
        assert wanted.source_root is not None
        with hinted(f"look at that file; the source is {wanted.source_root}"):
            return create_pair(
                wanted.source_root,
                wanted.source_seg_root,
                wanted.source_npz or wanted.source_root / "train.npz",
                folder / "pair",
                pair_index=wanted.pair_index,
                follow_links=wanted.follow_links,
            )

    request.node.stash[PAIR] = files = once(request, "pair", build)
    return files


def dataset(config: OverfitConfig, split: SplitConfig, files: Any, *, split_file: Path | None = None) -> Any:
    """The Dataset of one split over the files of the pair; the trainer's own object where it has one."""
    from pytest_overfit.two_view.data.dataset import PairDataset

    if not isinstance(not_none(files, "overfit_pair"), PairFiles):
        return files.source

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
        follow_links=config.overfit.pair.follow_links,
    )


def loader(config: OverfitConfig, files: Any, data: Any) -> Any:
    """The DataLoader of the one pair, or what stands for it."""
    from pytest_overfit.two_view.data.loader import build_loader

    if not isinstance(not_none(files, "overfit_pair"), PairFiles):
        return files
    return build_loader(not_none(data, "overfit_dataset"), pair_index=files.pair_index, num_workers=config.num_workers)


def batch(request: pytest.FixtureRequest, config: OverfitConfig, train_loader: Any) -> Mapping[str, Any]:
    """The normalised first batch; what a second draw differs in is kept for the verdict."""
    from pytest_overfit.run.sample import LOADER_DRAWS, Sample, draw_batch
    from pytest_overfit.run.trainer_data import TrainerData, draw_sample

    @limited_stage(request, config, "loader")
    def build() -> Sample:
        if isinstance(not_none(train_loader, "overfit_loader"), TrainerData):
            return draw_sample(train_loader)
        drawn, differences = draw_batch(train_loader)
        return Sample(drawn, None, differences, draws=LOADER_DRAWS)

    request.node.stash[DRAWN] = sample = once(request, "batch", build)
    return sample.train


def val_batch(request: pytest.FixtureRequest, config: OverfitConfig) -> Mapping[str, Any] | None:
    """The normalised batch of the validation split: of the cut pair's ``val.npz``, or of ``data.val`` in place."""

    @limited_stage(request, config, "loader")
    def build() -> Mapping[str, Any] | None:
        from pytest_overfit.run.sample import draw_batch
        from pytest_overfit.two_view.pair.index import locate_pair

        split = config.val
        if split is None:
            return None
        if config.trainer is not None:
            from pytest_overfit.run.trainer_data import TrainerData

            theirs = TrainerData(config, "val")
            return theirs.prepared(theirs.draw(0)[0])
        refuse_missing(config, "val")
        if config.overfit.pair.source == "dataset":
            assert split.root is not None
            assert split.split_file is not None
            where, wanted = (split.root, split.split_file, split.segmentation_root), config.overfit.pair
            files = locate_pair(*where, wanted.pair_index, follow_links=wanted.follow_links)
            data = dataset(config, split, files)
        else:
            files = request.getfixturevalue("overfit_pair")
            data = dataset(config, split, files, split_file=files.root / "val.npz")
        return draw_batch(loader(config, files, data))[0]

    return once(request, "val_batch", build)


def model(request: pytest.FixtureRequest) -> Any:
    """The config's model; without a config there is none until somebody gives one."""
    from pytest_overfit.run.parts import build_model

    config = told(lambda: config_or_none(request))
    if config is None:
        raise pytest.fail.Exception(str(_nothing_given("model")), pytrace=False)
    told_of: list[str] = []
    kept: dict[str, Any] = getattr(request.node.parent, "overfit_built", {})
    if "model" in kept:  # it was tried by another item of the file, and may have hung there
        raise kept["model"][1]
    try:
        with limited_stage(request, config, "model"):
            built = build_model(config, tell=told_of.append)
    except OverfitError as error:
        kept["model"] = (None, error)
        raise
    request.node.stash[DEFAULT_MODEL] = built
    request.node.stash[MODEL_NOTES] = tuple(told_of)
    return built


def loss(request: pytest.FixtureRequest) -> Any:
    """The config's loss; without a config the model returns its own."""
    from pytest_overfit.run.parts import build_loss

    config = told(lambda: config_or_none(request))
    return None if config is None else build_loss(config)


def batch_or_error(request: pytest.FixtureRequest) -> Any:
    """The config's batch; without a config there is none until somebody gives one."""
    config = told(lambda: config_or_none(request))
    if config is None:
        raise NothingGiven(str(_nothing_given("batch")), pytrace=False)
    return batch(request, config, request.getfixturevalue("overfit_loader"))


def _nothing_given(what: str) -> OverfitError:
    argument = {"batch": "data"}.get(what, what)
    return OverfitError(
        f"no {what} was given",
        where=f"overfit_{what}",
        allowed=f"a {argument} passed to overfit(...), an overfit_{what} fixture of your own, or a config",
        hint=f"define `def overfit_{what}()` as a fixture in a conftest.py, or name a config in the marker",
    )


def caller(request: pytest.FixtureRequest) -> Callable[..., OverfitResult]:
    """The ``overfit`` fixture: a call that trains, judges, and fails the test with every missed criterion."""
    from pytest_overfit.plugin.calls import OverfitCall

    call = OverfitCall(request)
    verdicts_of(request.node, CALL)
    _hand_to_test_case(request, "overfit", call)
    return call


def result(request: pytest.FixtureRequest) -> OverfitResult:
    """One bounded run and its verdict, of the test's config or of what its fixtures give."""
    from pytest_overfit.plugin.calls import OverfitCall

    if isinstance(request.node.parent, ConfigFile):
        return config_result(request)
    verdict = OverfitCall(request).run({}, {})
    _hand_to_test_case(request, "overfit_result", verdict)
    return verdict


def _hand_to_test_case(request: pytest.FixtureRequest, name: str, value: object) -> None:
    """A ``unittest.TestCase`` takes no fixture as an argument: it finds it as an attribute."""
    instance = request.instance
    if isinstance(instance, unittest.TestCase):
        setattr(instance, name, value)


def config_result(request: pytest.FixtureRequest, **passed: Any) -> OverfitResult:
    """One bounded run under the test's config and its verdict, TensorBoard files and live progress included.

    Args:
        passed: model, loss, optimizer or step in place of the fixture of that name.
    """
    config = config_or_none(request)
    assert config is not None

    def value(name: str) -> Any:
        return passed[name] if passed.get(name) is not None else request.getfixturevalue(f"overfit_{name}")

    def build() -> OverfitResult:
        from pytest_overfit.api import overfit_config
        from pytest_overfit.run.sample import Sample
        from pytest_overfit.trainer.explanation import explain_config

        wanted = value("model")
        fresh = wanted is request.node.stash.get(DEFAULT_MODEL, None) and len(config.overfit.seeds) > 1
        train, loss = given(request, "overfit_batch"), not_none(value("loss"), "overfit_loss")
        val = request.getfixturevalue("overfit_val_batch") if config.val is not None else None
        drawn: Sample = request.node.stash.get(DRAWN, Sample(train))
        notes = request.node.stash.get(MODEL_NOTES, ()) if wanted is request.node.stash.get(DEFAULT_MODEL, None) else ()
        sample = replace(drawn, train=train, val=val, notes=(*(() if fresh else notes), *drawn.notes))
        place = place_of(request, config.overfit.distributed)
        with Watchers(
            request,
            config.exp_name,
            config.planned_steps,
            criteria=config.overfit.criteria,
            explained=lambda: explain_config(config),
            config=config,
            pair=request.node.stash.get(PAIR, None),
        ) as watchers:
            verdict = overfit_config(
                config,
                None if fresh else _checked(wanted),
                sample,
                loss=loss,
                optimizer=value("optimizer"),
                step=value("step"),
                observers=lambda seed: [*watchers.of_seed(seed), Beginning(request.node.parent)],
                rules=request.getfixturevalue("overfit_causes"),
                place=place,
            )
            verdict = agreed_verdict(place, watchers.end(verdict))
        note = watchers.note(verdict)
        request.node.parent.stash[RUN] = note
        keep_run(request.node, verdict, note)
        if verdict.interrupted:
            keep_interrupted(request.node, verdict, note)
            raise KeyboardInterrupt
        if not isinstance(request.node.parent, ConfigFile):
            keep_call(request.node, verdict, note)
        return verdict

    return once(request, "result", build)


class Beginning(Observer):
    """Keeps that the run of a config file has come to its training: what ends it from then on is its own fault."""

    def __init__(self, file: pytest.Collector) -> None:
        self.file = file

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        self.file.stash[BEGUN] = self.file.stash.get(BEGUN, False) or name == TRAINING


def _checked(model: Any) -> Any:
    """A factory as it is, a module checked."""
    from pytest_overfit.run.subject import is_factory

    return model if is_factory(model) else checked_model(model)
