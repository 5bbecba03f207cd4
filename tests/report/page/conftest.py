"""A browser for pages that are opened as files, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.report.page.write import write_pages
from pytest_overfit.report.record.folder import folder_of, write_document
from tests.report.page.opened import Reader, hostile, passing, without_a_run
from tests.report.page.pages import write_pictures
from tests.report.test_twins import with_twins
from tests.support.documents import broken, frozen_trunk, frozen_trunk_pictured, mended, two_view_pictured

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
HARMLESS = ("log", "info", "debug")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)


def is_needed() -> bool:
    """Whether a missing browser is a failure: in continuous integration nothing may be left out silently."""
    return os.environ.get("CI", "").lower() in ("1", "true")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, without a window and without a network."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        if is_needed():
            pytest.fail("no Chromium: CI is set, and the pages have to be opened there", pytrace=False)
        pytest.skip("no Chromium is installed: the pages are not opened")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield running
        running.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real runs: one that passes, failing ones, several seeds, and one with hostile names."""
    folder: Path = tmp_path_factory.mktemp("report")
    documents = [
        passing(),
        frozen_trunk(),
        broken("head_swapped_late", (0, 1, 2)),
        mended("sgd_rate_of_twenty", (0, 1)),
        hostile(),
        with_twins(),
        *without_a_run(),
    ]
    for pictured, pictures in (two_view_pictured(), frozen_trunk_pictured()):
        write_pictures(folder_of(folder, pictured), pictures)
    for document in documents:
        folder_of(folder, document).mkdir(parents=True, exist_ok=True)
        write_document(folder, document)
    write_pages(folder, documents)
    return folder


@pytest.fixture
def reader(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Reader]:
    """A fresh page, as wide and as dark as the test asks; whatever goes wrong in it fails the test."""
    asked: dict[str, Any] = getattr(request, "param", {})
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **asked})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda asked_for: problems.append(asked_for.url))
    page.on("request", lambda made: None if made.url.startswith(("file:", "data:")) else problems.append(made.url))
    page.on("console", lambda line: None if line.type in HARMLESS else problems.append(line.text))
    yield Reader(page, report, problems)
    page.close()
    assert problems == []
