"""OpenCV that gives no pixels for an .exr file is heard."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import cv2
import pytest

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.exr_depth import exr_heard


@pytest.fixture
def unreadable(tmp_path: Path) -> str:
    (tmp_path / "a.exr").write_bytes(b"not an image")
    return str(tmp_path / "a.exr")


@pytest.mark.parametrize("goes_on", [True, False])
def test_an_unreadable_file_is_the_error_whatever_the_loader_does(unreadable: str, goes_on: bool) -> None:
    """A loader that goes on with zeros, and one that trips over the None."""

    def load() -> None:
        with exr_heard(), contextlib.suppress(*(TypeError, cv2.error) if goes_on else ()):
            cv2.imread(unreadable)[..., 0]  # type: ignore[index]

    with pytest.raises(PairError, match=r"a\.exr: cv2\.imread of OpenCV \d.* gives no pixels for 1 \.exr"):
        load()


@pytest.mark.parametrize(("version", "hint"), [("5.0.0", "opencv-python<5"), ("4.11.0", "OPENCV_IO_ENABLE_OPENEXR=1")])
def test_the_hint_is_of_the_installed_version(
    unreadable: str, monkeypatch: pytest.MonkeyPatch, version: str, hint: str
) -> None:
    """OpenCV 5 has no OpenEXR at all, 4 wants a variable."""
    monkeypatch.setattr(cv2, "__version__", version)
    monkeypatch.setattr(cv2, "imread", lambda *_: None)
    with pytest.raises(PairError, match=hint), exr_heard():
        cv2.imread(unreadable)


def test_everything_else_passes_through(tmp_path: Path) -> None:
    """A file that is not there is the loader's business, and imread is itself again afterwards."""
    original: Any = cv2.imread
    with exr_heard():
        cv2.imread(str(tmp_path / "nowhere.png"))
        cv2.imread(str(tmp_path / "nowhere.exr"))
    assert cv2.imread is original
