"""``overfit`` and ``overfit_result``: what a test passes, its fixtures give and its settings say, as one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.plugin.faults import SKIPS, is_skip_of_fixture, of_users_code, refused_skip
from pytest_overfit.plugin.fixtures import NothingGiven, once
from pytest_overfit.plugin.item_reports import keep_run
from pytest_overfit.plugin.observers import RunObservers
from pytest_overfit.plugin.requester import Requester, config_or_none, given, layers_of, own_config, place_of
from pytest_overfit.plugin.state import FileState
from pytest_overfit.plugin.termination import EndedBySignal
from pytest_overfit.plugin.tracked_result import tracked, tracked_result
from pytest_overfit.plugin.unchecked import CALL, RESULT
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.phases import TRAINING
from pytest_overfit.settings.keywords import MARKER
from pytest_overfit.settings.ladder import layer_of_keywords, misspelt

if TYPE_CHECKING:
    from pytest_overfit.run.place import Place
    from pytest_overfit.trainer.config import OverfitConfig

PIECES = ("model", "batch", "loss", "optimizer", "step")  # each has a fixture
PASSED = ("val_data", "schedule")  # by the call alone; a config has its own
BESIDE = ("save", "load", "accumulate", "port_of")  # what some twins need: by the call, under a config too


class OverfitCall:
    """``overfit(model, data, loss)`` in a test.

    Whatever is not passed comes from the fixture of that name. Under a config the config's pair is the data.
    """

    def __init__(self, requester: Requester) -> None:
        self.requester = requester
        requester.state.fixtures.add(CALL)

    def __call__(
        self,
        model: Any = None,
        data: Any = None,
        loss: Any = None,
        *,
        optimizer: Any = None,
        step: Callable[..., Any] | None = None,
        val_data: Any = None,
        schedule: Any = None,
        **settings: Any,
    ) -> OverfitResult:
        """Trains, judges, and fails the test with every missed criterion. The arguments are those of ``run_overfit``.

        Raises:
            AssertionError: a criterion is missed; all of them are named.
        """
        __tracebackhide__ = True
        pieces: dict[str, Any] = {"twins": {name: settings.pop(name) for name in BESIDE if name in settings}}
        pieces |= {"model": model, "batch": data, "loss": loss, "optimizer": optimizer, "step": step}
        pieces |= {"val_data": val_data, "schedule": schedule}
        with tracked(self.requester.state.runs) as run:
            verdict = _told(self.requester, pieces, settings)
            run.came_to(verdict)
            verdict.check()
        return verdict

    def __repr__(self) -> str:
        return "overfit"


def overfit_result(requester: Requester) -> OverfitResult:
    """One bounded run and its verdict, whatever that is: of the test's config, or of what its fixtures give."""
    __tracebackhide__ = True
    nothing = dict.fromkeys((*PIECES, *PASSED))
    if requester.file is not None:
        return _run_config(requester, nothing)
    requester.state.fixtures.add(RESULT)
    with tracked(requester.state.runs) as run:
        verdict = _told(requester, nothing, {})
        run.came_to(verdict)
    return tracked_result(verdict, run)


def _told(requester: Requester, passed: Mapping[str, Any], settings: Mapping[str, Any]) -> OverfitResult:
    """What a run comes to; what it raises with the frames of the test alone."""
    __tracebackhide__ = True
    try:
        return _run(requester, passed, settings)
    except OverfitError as error:
        told = _with_call(error, passed, settings, requester)
    except SKIPS as error:
        if is_skip_of_fixture(error):
            raise
        told = str(refused_skip(error, "run"))
    except Exception as error:
        _note_empty(error, passed["batch"])
        raise of_users_code(error)  # noqa: B904 - this very error, cut short
    raise pytest.fail.Exception(told, pytrace=False)


def _note_empty(error: Exception, batch: Any) -> None:
    """Whoever has passed an empty list is told so where the loss looks for a batch in it."""
    if isinstance(batch, (list, tuple, dict)) and not batch:
        note = f"  the batch that was passed is an empty {type(batch).__name__}: pass a batch, or a loader"
        error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]


def _with_call(
    error: OverfitError, passed: Mapping[str, Any], settings: Mapping[str, Any], requester: Requester
) -> str:
    """What an error says, and which call of the user's it is about; the call as it should read where that is clear."""
    from pytest_overfit.diagnose.refused_call import line_of_call

    marked = error.where == MARKER and requester.markers is not None
    renames = {name: meant for name, meant in misspelt(requester.keywords if marked else settings).items() if meant}
    name = "" if marked else CALL  # a marker stands above the call
    where, line = line_of_call(name, passed["model"], passed["batch"], passed["loss"], renames)
    lines = str(error).splitlines()
    lines[1:1] = [f"  where: {where}"] if where else []
    return "\n".join([*lines, *([f"  change: {line}"] if line else ())])


def _run(requester: Requester, passed: Mapping[str, Any], settings: Mapping[str, Any]) -> OverfitResult:
    __tracebackhide__ = True
    where = f"overfit(...) in {requester.nodeid}"
    if passed["batch"] is not None and own_config(requester) is not None:
        raise ConfigError(
            "data beside a config",
            where=where,
            allowed="a config, whose pair is the data, or data of your own",
            hint="leave the config out of the marker, or override the overfit_batch fixture",
        )
    alone = passed["batch"] is None and not _brings_data(passed["model"])
    if alone and config_or_none(requester) is not None:
        if beside := [*settings, *(name for name in PASSED if passed[name] is not None)]:
            raise ConfigError(
                f"settings beside a config: {', '.join(beside)}",
                where=where,
                allowed="settings in the marker, in the config or on the command line",
            )
        return _run_config(requester, passed)
    requester.state.without_config = True
    return _run_model(requester, passed, settings)


def _run_model(requester: Requester, passed: Mapping[str, Any], keywords: Mapping[str, Any]) -> OverfitResult:
    """One bounded run without a config."""
    from pytest_overfit.api import run_subject
    from pytest_overfit.run.subject import Subject, TwinParts, schedules_of
    from pytest_overfit.settings.explain_settings import explain_settings

    __tracebackhide__ = True
    session = requester.session
    layers = [*layers_of(session.options, requester.markers), layer_of_keywords("overfit(...)", keywords)]
    resolved = session.resolved(layers, requester.nodeid)
    settings = resolved.settings
    model, loss, optimizer, step = (_piece(requester, passed, name) for name in PIECES if name != "batch")
    data = _batch(requester, model) if passed["batch"] is None else passed["batch"]
    subject = Subject(
        *(model, data, loss, optimizer, step),
        name=requester.nodeid,
        val_data=requester.fixture("overfit_val_batch") if passed["val_data"] is None else passed["val_data"],
        schedules=schedules_of(passed["schedule"]),
        twins=TwinParts(**passed.get("twins", {})),
    )
    place = place_of(requester, settings.distributed)
    observers = RunObservers(
        requester,
        requester.name,
        settings.budget.max_steps or 0,
        criteria=settings.criteria,
        explained=lambda: explain_settings(resolved),
    )

    def train() -> OverfitResult:
        return run_subject(
            subject,
            settings,
            observers=observers.of_seed,
            rules=requester.fixture("overfit_causes"),
            place=place,
        )

    return _observed(requester, observers, place, train)


def _run_config(requester: Requester, passed: Mapping[str, Any]) -> OverfitResult:
    """One bounded run under the test's config; that of a config file is made once for all of its items."""
    config = config_or_none(requester)
    assert config is not None
    return once(requester, "result", lambda: _train_config(requester, config, passed))


def _train_config(requester: Requester, config: OverfitConfig, passed: Mapping[str, Any]) -> OverfitResult:
    from pytest_overfit.api import run_config
    from pytest_overfit.integrations.adapt import home_of
    from pytest_overfit.run.sample import Sample
    from pytest_overfit.run.subject import TwinParts
    from pytest_overfit.trainer.explain_config import explain_config
    from pytest_overfit.two_view.inspections import not_none

    state, model = requester.state, _piece(requester, passed, "model")
    is_default = state.model is not None and model is state.model
    fresh = is_default and len(config.overfit.seeds) > 1
    batch = given(requester, "overfit_batch")
    loss = not_none(_piece(requester, passed, "loss"), "overfit_loss")
    if home_of(model) is not None and loss is state.loss:
        loss = None  # an object of another library brings its own
    val = requester.fixture("overfit_val_batch") if config.val is not None else None
    drawn = state.sample or Sample(batch)
    notes = state.model_notes if is_default and not fresh else ()
    sample = replace(drawn, train=batch, val=val, notes=(*notes, *drawn.notes))
    place = place_of(requester, config.overfit.distributed)
    observers = RunObservers(
        requester,
        config.exp_name,
        config.planned_steps,
        criteria=config.overfit.criteria,
        explained=lambda: explain_config(config),
        config=config,
    )
    in_file = () if requester.file is None else (TrainingBegins(requester.file),)

    def train() -> OverfitResult:
        return run_config(
            config,
            None if fresh else _checked(model),
            sample,
            loss=loss,
            optimizer=_piece(requester, passed, "optimizer"),
            step=_piece(requester, passed, "step"),
            observers=lambda seed: [*observers.of_seed(seed), *in_file],
            rules=requester.fixture("overfit_causes"),
            place=place,
            twins=TwinParts(**passed.get("twins", {})),
        )

    return _observed(requester, observers, place, train)


def _observed(
    requester: Requester, observers: RunObservers, place: Place, train: Callable[[], OverfitResult]
) -> OverfitResult:
    """The verdict of a run, written down and kept for the summary. Ctrl-C goes on once that is done."""
    __tracebackhide__ = True
    with observers:
        verdict = observers.end(train())
        if place.ranks is not None:  # the first one alone compares with saved runs
            from pytest_overfit.report.record.codec import result_from_json, result_to_json

            verdict = place.ranks.share(verdict, result_to_json, result_from_json)
    keep_run(requester, verdict, observers.note(verdict))
    if verdict.interrupted:
        ended = requester.session.ended_by
        raise EndedBySignal(ended) if ended else KeyboardInterrupt
    return verdict


class TrainingBegins(Observer):
    """Keeps that the run of a config file has come to its training: what ends it from then on is its own fault."""

    def __init__(self, file: FileState) -> None:
        self.file = file

    def on_phase(self, name: str, detail: str, seconds_left: float | None) -> None:
        self.file.training |= name == TRAINING


def _piece(requester: Requester, passed: Mapping[str, Any], name: str) -> Any:
    """What a test has passed, or its fixture gives."""
    return requester.fixture(f"overfit_{name}") if passed[name] is None else passed[name]


def _batch(requester: Requester, model: Any) -> Any:
    """That of the fixture; nothing where there is none and the model may bring data of its own."""
    from pytest_overfit.integrations.adapt import may_bring_data
    from pytest_overfit.run.subject import NOT_GIVEN

    try:
        return requester.fixture("overfit_batch")
    except NothingGiven:
        if may_bring_data(model):
            return NOT_GIVEN
        raise


def _brings_data(model: Any) -> bool:
    """Whether what a test passes is trained on data of its own, whatever configs there are."""
    if model is None:
        return False
    from pytest_overfit.integrations.adapt import home_of, may_bring_data

    return home_of(model) is not None and may_bring_data(model)


def _checked(model: Any) -> Any:
    """A factory, or an object of a library that is known, as it is; a module checked."""
    from pytest_overfit.integrations.adapt import home_of
    from pytest_overfit.run.subject import is_factory
    from pytest_overfit.two_view.inspections import checked_model

    return model if is_factory(model) or home_of(model) is not None else checked_model(model)
