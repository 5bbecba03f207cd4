"""The ``overfit`` fixture: what a test passes, what its fixtures give, and what its settings say, as one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.plugin.collection import layers_of, settings_of
from pytest_overfit.plugin.fixtures import ANY_MODEL_RUN, NothingGiven, config_or_none, config_result, own_config
from pytest_overfit.plugin.items import SKIPS, from_users_code, is_skip_of_fixture, refused_skip
from pytest_overfit.plugin.outcomes import CALL, RESULT, handed, verdicts_of
from pytest_overfit.plugin.processes import agreed_verdict, place_of
from pytest_overfit.plugin.terminal import keep_call, keep_interrupted, keep_run
from pytest_overfit.plugin.watchers import Watchers
from pytest_overfit.result import OverfitResult
from pytest_overfit.settings.ladder import layer_of_keywords

PIECES = ("model", "batch", "loss", "optimizer", "step")


class OverfitCall:
    """``overfit(model, data, loss)`` in a test.

    Whatever is not passed comes from the fixture of that name. Under a config the config's pair is the data.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request

    def __call__(
        self,
        model: Any = None,
        data: Any = None,
        loss: Any = None,
        *,
        optimizer: Any = None,
        step: Callable[..., Any] | None = None,
        **settings: Any,
    ) -> OverfitResult:
        """Trains, judges, and fails the test with every missed criterion.

        Raises:
            AssertionError: a criterion is missed; all of them are named.
        """
        __tracebackhide__ = True
        pieces = {"model": model, "batch": data, "loss": loss, "optimizer": optimizer, "step": step}
        with verdicts_of(self.request.node, CALL).run() as run:
            verdict = self._told(pieces, settings)
            run.came_to(verdict)
            verdict.check()
        return verdict

    def run(self, pieces: Mapping[str, Any], settings: Mapping[str, Any]) -> OverfitResult:
        """As a call with these pieces and settings, but the result is handed out whatever it is."""
        __tracebackhide__ = True
        with verdicts_of(self.request.node, RESULT).run() as run:
            verdict = self._told(pieces, settings)
            run.came_to(verdict)
        return handed(verdict, run)

    def _told(self, pieces: Mapping[str, Any], settings: Mapping[str, Any]) -> OverfitResult:
        """What a run comes to; what it raises with the frames of the test alone."""
        __tracebackhide__ = True
        try:
            return self._run({name: pieces.get(name) for name in PIECES}, settings)
        except OverfitError as error:
            told = str(error)
        except SKIPS as error:
            if is_skip_of_fixture(error):
                raise
            told = str(refused_skip(error, "run"))
        except Exception as error:
            raise error.with_traceback(from_users_code(error.__traceback__))  # noqa: B904 - this very error, cut short
        raise pytest.fail.Exception(told, pytrace=False)

    def _run(self, given: Mapping[str, Any], settings: Mapping[str, Any]) -> OverfitResult:
        __tracebackhide__ = True
        if given["batch"] is not None and own_config(self.request) is not None:
            raise ConfigError(
                "data beside a config",
                where=f"overfit(...) in {self.request.node.nodeid}",
                allowed="a config, whose pair is the data, or data of your own",
                hint="leave the config out of the marker, or override the overfit_batch fixture",
            )
        alone = given["batch"] is None and not _brings_data(given["model"])
        if alone and config_or_none(self.request) is not None:
            if settings:
                raise ConfigError(
                    f"settings beside a config: {', '.join(settings)}",
                    where=f"overfit(...) in {self.request.node.nodeid}",
                    allowed="settings in the marker, in the config or on the command line",
                )
            return config_result(self.request, **given)
        self.request.node.stash[ANY_MODEL_RUN] = True
        return self._run_any(given, settings)

    def _run_any(self, given: Mapping[str, Any], settings: Mapping[str, Any]) -> OverfitResult:
        from pytest_overfit.api import overfit_model
        from pytest_overfit.run.subject import Subject
        from pytest_overfit.settings.explain import explain_settings

        __tracebackhide__ = True
        node = self.request.node
        layers = [*layers_of(node), layer_of_keywords("overfit(...)", settings)]
        settled = settings_of(node, layers)
        resolved = settled.settings
        pieces = {
            name: self.request.getfixturevalue(f"overfit_{name}") if given[name] is None else given[name]
            for name in PIECES
            if name != "batch"
        }
        pieces["batch"] = self._batch(pieces["model"]) if given["batch"] is None else given["batch"]
        place = place_of(self.request, resolved.distributed)
        with Watchers(
            self.request,
            node.name,
            resolved.budget.max_steps or 0,
            criteria=resolved.criteria,
            explained=lambda: explain_settings(settled),
        ) as watchers:
            verdict = overfit_model(
                Subject(*(pieces[name] for name in PIECES)),
                resolved,
                name=node.nodeid,
                observers=watchers.of_seed,
                rules=self.request.getfixturevalue("overfit_causes"),
                place=place,
            )
            verdict = agreed_verdict(place, watchers.end(verdict))
        note = watchers.note(verdict)
        keep_run(node, verdict, note)
        if verdict.interrupted:
            keep_interrupted(node, verdict, note)
            raise KeyboardInterrupt
        keep_call(node, verdict, note)
        return verdict

    def _batch(self, model: Any) -> Any:
        """That of the fixture; nothing where there is none and the model may bring data of its own."""
        from pytest_overfit.integrations.adapt import may_bring_data
        from pytest_overfit.run.subject import NOT_GIVEN

        try:
            return self.request.getfixturevalue("overfit_batch")
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
