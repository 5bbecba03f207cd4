"""The pages of a report folder: they open as files, without a server and without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import REPORT
from pytest_overfit.judge.finding import is_line, number
from pytest_overfit.report.page import sentences as words
from pytest_overfit.report.page.coverage import problems_of
from pytest_overfit.report.page.language import in_data, in_language, script_words
from pytest_overfit.report.page.overview import overview_of
from pytest_overfit.report.page.run_page import RunView
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import RECORD, folder_of, write_text
from pytest_overfit.text.cause_titles import meaning, title
from pytest_overfit.text.table import margin_text
from pytest_overfit.untrusted.files import read_regular

INDEX, ASSETS = "index.html", "assets"
PREDICTION_COLUMNS = (
    ("abs_rel", "AbsRel"),
    ("delta_1_25", "δ < 1.25"),
    ("mae", "MAE (normalised)"),
    ("mae_metres", "MAE (m)"),
    ("rotation_deg", "Rotation (°)"),
    ("translation_deg", "Translation (°)"),
    ("translation_metres", "Translation (m)"),
    ("fov_deg", "Field of view (°)"),
)
OWN = ("page.css", "page.js", "labels.js", "charts.js")
BOKEH = ("bokeh.min.js", "bokeh-api.min.js")


def write_pages(report: Path, documents: Sequence[Document], *, lang: str = "en", notes: Sequence[str] = ()) -> Path:
    """Writes the overview, one page per run beside its record, and the scripts and styles that they share.

    Example:
        >>> write_pages(Path("overfit_report"), read_report(Path("overfit_report")))      # doctest: +SKIP
        PosixPath('overfit_report/index.html')

    Args:
        report: the folder that holds ``runs/``; made where it is not there.
        documents: the runs to show. A picture that one of them names and that is not there is told on its page.
        lang: ``en`` or ``zh``; names, numbers and code are the same in both.
        notes: what the overview says of the session beside its runs.

    Returns:
        The overview.

    Raises:
        OSError: the folder cannot be written.
        OverfitError: the id of a document is no name of a folder; nothing is written then.
    """
    _refuse_strange(documents)
    assets = report / ASSETS
    assets.mkdir(parents=True, exist_ok=True)
    for name, text in _assets():
        _write_changed(assets / name, text)
    environment = _environment()
    for document in documents:
        folder = folder_of(report, document)
        folder.mkdir(parents=True, exist_ok=True)
        view = RunView(document, folder)
        page = _rendered(environment, "run.html", lang, assets=f"../../{ASSETS}", run=view)
        _write_changed(folder / INDEX, page)
    shown = overview_of(documents)
    overview = _rendered(environment, "overview.html", lang, assets=ASSETS, overview=shown, notes=notes)
    return _write_changed(report / INDEX, overview)


def _refuse_strange(documents: Sequence[Document]) -> None:
    """An id that was read from a file may hold anything, and must not lead out of the report."""
    for document in documents:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", document.id) or not document.id.strip("."):
            raise OverfitError(
                repr(document.id),
                where=f"the id of {document.title}",
                allowed="letters, digits, dot, dash and underscore",
            )


def _rendered(environment: Environment, template: str, lang: str, **context: Any) -> str:
    """A page in UTF-8, whatever a test was called."""
    text = in_language(environment.get_template(template).render(**context, lang=lang), lang)
    return text.encode("utf-8", "replace").decode("utf-8")


def _write_changed(path: Path, text: str) -> Path:
    """Writes a file that is not there already, word for word: a browser may keep what has not changed."""
    data = text.encode("utf-8")
    try:
        same = read_regular(path, most=len(data)) == data
    except OverfitError:  # missing, longer, or no file: it is replaced
        same = False
    return path if same else write_text(path, text)


@lru_cache(maxsize=1)
def _assets() -> tuple[tuple[str, str], ...]:
    return tuple(_read_assets())


def _read_assets() -> Iterator[tuple[str, str]]:
    """The scripts of the installed Bokeh, and ours."""
    own, bokeh = files(__package__) / "static", files("bokeh") / "server" / "static" / "js"
    for folder, names in ((own, OWN), (bokeh, BOKEH)):
        for name in names:
            yield name, (folder / name).read_bytes().decode("utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        breakable=words.breakable,
        count=words.count,
        value=words.value_text,
        duration=words.duration,
        when=words.when,
        margin=margin_text,
        margin_share=words.margin_share,
        problems=problems_of,
    )
    environment.tests["pasteable"] = is_line
    environment.globals.update(strengths=words.STRENGTHS, meaning=meaning, named=title)
    environment.globals.update(ask_to_report=REPORT, drawn=in_data, script_words=script_words)
    environment.globals.update(record_file=RECORD, prediction_columns=PREDICTION_COLUMNS)
    return environment
