"""A browser for pages that are opened as files, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
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
