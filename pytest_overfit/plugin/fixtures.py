"""What the default fixtures build; the items of one config file share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.plugin.faults import ends_session
from pytest_overfit.plugin.requester import Requester, config_or_none, limited_stage, told
from pytest_overfit.trainer.config import OverfitConfig
from pytest_overfit.two_view.inspections import not_none

Value = TypeVar("Value")


class NothingGiven(pytest.fail.Exception):  # type: ignore[misc, name-defined]
    """Neither a test nor a fixture nor a config gives this piece of a run."""


def once(requester: Requester, name: str, build: Callable[[], Value]) -> Value:
    """Builds once per config file, and again for every other test; an error is kept and raised again too."""
    if requester.file is None:
        return told(build)
    built = requester.file.built
    if name not in built:
        try:
            built[name] = (build(), None)
        except BaseException as error:  # a time-out of pytest-timeout is one too
            if not ends_session(error):
                built[name] = (None, error)
            raise
    value, failure = built[name]
    if failure is not None:
        raise failure
    return value  # type: ignore[no-any-return]


def pair(requester: Requester, config: OverfitConfig, new_folder: Callable[[], Path]) -> Any:
    """The files of the config's pair; under a trainer's own data class what hands out its batches."""
    if config.trainer is not None:
        from pytest_overfit.two_view.data.trainer_data import TrainerData

        return once(requester, "trainer_data", lambda: TrainerData(config))
    from pytest_overfit.two_view.from_config import pair_of

    build = limited_stage(requester, config, "pair")(pair_of)
    requester.state.pair = files = once(requester, "pair", lambda: build(config, new_folder))
    return files


def batch(requester: Requester) -> Any:
    """The normalised first batch of the config; without one there is none until somebody gives it.

    What a second draw differs in is kept for the verdict.
    """
    from pytest_overfit.run.sample import LOADER_DRAWS, Sample
    from pytest_overfit.two_view.data.dataset import draw_batch
    from pytest_overfit.two_view.data.trainer_data import TrainerData, draw_sample

    config = told(lambda: config_or_none(requester))
    if config is None:
        raise NothingGiven(str(_nothing_given("batch")), pytrace=False)
    train_loader = requester.fixture("overfit_loader")

    @limited_stage(requester, config, "loader")
    def build() -> Sample:
        if isinstance(not_none(train_loader, "overfit_loader"), TrainerData):
            return draw_sample(train_loader)
        drawn, differences = draw_batch(train_loader)
        return Sample(drawn, None, differences, draws=LOADER_DRAWS)

    requester.state.sample = sample = once(requester, "batch", build)
    return sample.train


def val_batch(requester: Requester) -> Any:
    """The normalised batch of the validation split; None where the config has none, and without a config."""
    config = told(lambda: config_or_none(requester))
    if config is None:
        return None

    @limited_stage(requester, config, "loader")
    def build() -> Mapping[str, Any] | None:
        if config.val is None:
            return None
        if config.trainer is not None:
            from pytest_overfit.two_view.data.trainer_data import TrainerData

            theirs = TrainerData(config, "val")
            return theirs.prepared(theirs.draw(0)[0])
        from pytest_overfit.two_view.from_config import val_batch_of

        return val_batch_of(config, config.val, lambda: requester.fixture("overfit_pair"))

    return once(requester, "val_batch", build)


def model(requester: Requester) -> Any:
    """The config's model; without a config there is none until somebody gives one."""
    from pytest_overfit.trainer.build import build_model

    config = told(lambda: config_or_none(requester))
    if config is None:
        raise pytest.fail.Exception(str(_nothing_given("model")), pytrace=False)
    notes: list[str] = []
    kept = {} if requester.file is None else requester.file.built
    failure = kept.get("model", (None, None))[1]
    if failure is not None:  # it was tried by another item of the file, and may have hung there
        raise failure
    try:
        with limited_stage(requester, config, "model"):
            built = build_model(config, tell=notes.append)
    except OverfitError as error:
        kept["model"] = (None, error)
        raise
    requester.state.model, requester.state.model_notes = built, tuple(notes)
    return built


def loss(requester: Requester) -> Any:
    """The config's loss; without a config the model returns its own."""
    from pytest_overfit.trainer.build import build_loss

    config = told(lambda: config_or_none(requester))
    requester.state.loss = built = None if config is None else build_loss(config)
    return built


def _nothing_given(what: str) -> OverfitError:
    argument = {"batch": "data"}.get(what, what)
    return OverfitError(
        f"no {what} was given",
        where=f"overfit_{what}",
        allowed=f"a {argument} passed to overfit(...), an overfit_{what} fixture of your own, or a config",
        hint=f"define `def overfit_{what}()` as a fixture in a conftest.py, or name a config in the marker",
    )
