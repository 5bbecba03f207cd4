"""Before a session collects: options and ini keys are checked, configs are loaded, hooks are registered."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.plugin import rank_session
from pytest_overfit.plugin.options import INI, LOOKING, OPTIONS
from pytest_overfit.plugin.resolved_options import arguments_with, config_of_argument, unknown_name
from pytest_overfit.plugin.state import SessionState, session_state
from pytest_overfit.untrusted.files import open_to_append

if TYPE_CHECKING:
    from argparse import Namespace

    from pytest_overfit.trainer.config import OverfitConfig


def configure(config: pytest.Config, odd_keys: Sequence[str]) -> None:
    """Registers whatever options, ini file and environment ask for; a refusal is told to the CI service too.

    Args:
        odd_keys: keys of the ini file that look like ours, and are none.

    Raises:
        pytest.UsageError: something is wrong with them (exit code 4).
    """
    try:
        _configure(config, odd_keys)
    except pytest.UsageError as error:
        if not hasattr(config, "workerinput"):
            tell_service(str(error))
            _tell_report(config, str(error))
        raise


def tell_service(message: str) -> None:
    """What is wrong, on the page of the job and beside the line; pytest tells the terminal."""
    from pytest_overfit.report.ci.refused import refused_annotation, refused_summary

    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(refused_annotation(message), flush=True)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open_to_append(Path(summary)) as file:
                file.write(refused_summary(message))
        except OSError as error:
            print(f"GITHUB_STEP_SUMMARY: {summary} cannot be written ({error})", file=sys.stderr)


def _tell_report(config: pytest.Config, message: str) -> None:
    """What is wrong, in the report that was asked for: one of an earlier session would be taken for this one's."""
    if any(config.getoption(name, False) for name in LOOKING):
        return
    try:
        session = session_state(config)
        asked, lang, writes = session.options.report, session.options.lang, session.writes
    except pytest.UsageError:  # the ini file itself is wrong
        given = config.getoption("overfit_report")
        asked, lang, writes = given and config.invocation_params.dir / given, "en", "WORLD_SIZE" not in os.environ
    if asked and writes:
        tell_refused(Path(asked), message, lang)


def tell_refused(report: Path, message: str, lang: str = "en") -> None:
    """Summary and page of a report say that nothing was run, and why; its records are left alone."""
    from pytest_overfit.plugin.nothing_ran import FAILS, NO_RUN
    from pytest_overfit.report.publish import write_forms

    first, *more = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    try:
        write_forms(report, (), lang=lang, notes=(f"{NO_RUN}.", f"{FAILS}: {first}", *more))
    except (OSError, OverfitError, ValueError) as error:  # a zero byte in its name is the last
        if str(report) not in message:  # which says so
            print(f"{report}: not written: {error}", file=sys.stderr)


def _configure(config: pytest.Config, odd_keys: Sequence[str]) -> None:
    if "WORLD_SIZE" in os.environ:
        rank_session.prepare(config)
    register = config.pluginmanager.register
    if config.getoption("overfit_strict") or config.getini("overfit_strict"):
        from pytest_overfit.plugin.strict import Strict

        register(Strict(), "overfit_strict")
    explained, given = config.getoption("overfit_explain"), config.getoption("overfit_config")
    named = any(".yaml" in argument or ".yml" in argument for argument in config.args)
    if odd_keys or explained or given or config.getini("overfit_config") or named:
        try:
            _refuse_ini(config, odd_keys)
            _load(config)
        except pytest.UsageError:
            rank_session.leave_first(config)
            raise
        from pytest_overfit.plugin.config_collector import ConfigCollection
        from pytest_overfit.plugin.terminal import Explanation, LastLines

        register(ConfigCollection(session_state(config)), "overfit_configs")
        register(LastLines(), "overfit_last_lines")
        if explained:
            register(Explanation(), "overfit_explanation")
    elif any(config.getoption(f"overfit_{name}") for name in ("set", "device", "require_gpu")):
        _refuse_settings(session_state(config))
    if config.getoption("overfit_log_dir") or config.getini("overfit_log_dir"):
        _refuse_log_folders(session_state(config))
    if _is_asked(config) and not hasattr(config, "workerinput"):
        from pytest_overfit.plugin.uncollected import Uncollected

        register(Uncollected(tell_service), "overfit_uncollected")
    if _is_recorded(config):
        from pytest_overfit.plugin import session_records

        session_records.prepare(config)


def refuse_options(known: Namespace, unknown: Sequence[str]) -> None:
    """One usage error (exit code 4) for every option of our name that nobody knows; the services are told so.

    Args:
        known: the options that somebody knows; a report that is asked for by them says so too.
        unknown: what is left of the command line.
    """
    names = [text.partition("=")[0] for text in unknown if text.startswith("--overfit")]
    if names:
        message = "\n".join(unknown_name(name, OPTIONS, "option") for name in names)
        if "PYTEST_XDIST_WORKER" not in os.environ:
            tell_service(message)
        if known.overfit_report and not any(getattr(known, name, False) for name in LOOKING):
            tell_refused(Path(known.overfit_report), message)
        raise pytest.UsageError(message)


def _load(config: pytest.Config) -> None:
    """Loads every config before anything is collected, reports all their problems, and sets the paths to collect."""
    from pytest_overfit.trainer.loading import load_configs

    session = session_state(config)
    options, folder = session.options, session.folder
    explicit = config.args_source is config.ArgsSource.ARGS
    plain = [path for argument in config.args if (path := config_of_argument(argument, folder)) is not None]
    files = tuple(dict.fromkeys((*options.configs, *plain)))
    try:
        requests = [(path, options.overrides) for path in files]
        loaded = load_configs(requests, ini=options.ini_overrides, beside=_named_in_vain)
    except ConfigError as error:  # paths as the user would type them, so that the key stands in the first line
        raise pytest.UsageError(
            re.sub(rf"(?m)^( *(?:change: )?){re.escape(f'{folder}{os.sep}')}", r"\1", str(error))
        ) from error
    asked = [(f"{path}, logging.log_dir", each.logging.log_dir) for path, each in zip(files, loaded, strict=True)]
    _refuse_log_folders(session, asked)
    session.configs.update(zip(files, session.adopted(loaded), strict=True))
    config.args[:] = arguments_with(config.args, options, explicit=explicit, folder=folder)


def _refuse_settings(session: SessionState) -> None:
    """One usage error for the wrong settings of the command line, where no config has them read."""
    from pytest_overfit.settings.command_line import refuse_overrides

    try:
        refuse_overrides(session.options.overrides)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from error


def _named_in_vain(config: OverfitConfig) -> Iterable[OverfitError]:
    """What else is wrong with a config that cannot be loaded; what it costs to look is paid for such alone."""
    from pytest_overfit.two_view.inspections import named_in_vain

    return named_in_vain(config)


def _refuse_log_folders(session: SessionState, asked: Sequence[tuple[str, Path | None]] = ()) -> None:
    """One usage error where a folder that somebody asked for cannot take a log: the folder, and what names it.

    Args:
        asked: settings of configs and their folders, where no option names another one.
    """
    if session.is_worker or not session.writes:
        return
    from pytest_overfit.report.folders import refuse_unwritable

    options = session.options
    named = options.log_dir or (options.ini_log_dir if not asked else None)
    setting = "--overfit-log-dir" if options.log_dir else "ini key overfit_log_dir"
    try:
        for place, folder in [(setting, named)] if named else asked:
            if folder is not None:
                refuse_unwritable(folder, place)
    except OverfitError as error:
        raise pytest.UsageError(str(error)) from error


def _refuse_ini(config: pytest.Config, names: Sequence[str]) -> None:
    """One usage error for every ini key of these names that nobody registered."""
    place = config.inipath.name if config.inipath else "ini file"
    if wrong := [name for name in names if not _is_registered(config, name)]:
        raise pytest.UsageError("\n".join(f"{place}: {unknown_name(name, INI, 'ini key')}" for name in wrong))


def _is_registered(config: pytest.Config, name: str) -> bool:
    try:
        config.getini(name)
    except ValueError:
        return False
    return True


def _is_asked(config: pytest.Config) -> bool:
    """Whether a CI service waits for word of overfit runs."""
    served = os.environ.get("GITHUB_STEP_SUMMARY") or os.environ.get("GITHUB_ACTIONS") == "true"
    names = ("config", "strict", "report", "save", "compare")
    asked = any(config.getoption(f"overfit_{name}") for name in names) or config.getini("overfit_strict")
    return bool(served and asked) and not any(config.getoption(name, False) for name in LOOKING)


def _is_recorded(config: pytest.Config) -> bool:
    """Whether anybody wants records of the runs: an option, the ini file, or the CI service.

    Of several ranks the first one writes them.
    """
    asked = any(config.getoption(f"overfit_{name}") for name in ("report", "save", "compare", "compare_fail"))
    written = any(config.getini(f"overfit_{name}") for name in ("report", "compare", "compare_fail"))
    served = bool(os.environ.get("GITHUB_STEP_SUMMARY")) or os.environ.get("GITHUB_ACTIONS") == "true"
    return (asked or written or served) and session_state(config).writes
