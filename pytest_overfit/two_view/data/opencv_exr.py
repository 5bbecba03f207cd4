"""Listens to OpenCV: an image that it cannot read is None to it, and a zero batch to a loader that goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_overfit.errors import PairError


@contextlib.contextmanager
def exr_heard() -> Iterator[None]:
    """Raises at the end of the block where ``cv2.imread`` gave no pixels for an .exr file.

    Example:
        >>> with exr_heard():
        ...     batch = next(iter(loader))                                       # doctest: +SKIP

    Raises:
        PairError: naming the file, OpenCV's version and what that version needs. It replaces whatever the loader made
            of it.
    """
    try:
        import cv2
    except ImportError:  # whoever needs it will say so
        yield
        return
    unread: list[str] = []
    original = cv2.imread

    def imread(filename: Any, *args: Any, **kwargs: Any) -> Any:
        is_exr = str(filename).lower().endswith(".exr") and Path(str(filename)).is_file()
        try:
            pixels = original(filename, *args, **kwargs)
        except cv2.error:
            unread.extend([str(filename)] * is_exr)
            raise
        if pixels is None and is_exr:
            unread.append(str(filename))
        return pixels

    cv2.imread = imread
    try:
        yield
    except Exception as error:
        if unread:
            raise _unreadable(unread, cv2.__version__) from error
        raise
    finally:
        cv2.imread = original
    if unread:
        raise _unreadable(unread, cv2.__version__)


def _unreadable(unread: list[str], version: str) -> PairError:
    old = int(version.partition(".")[0]) < 5
    return PairError(
        f"cv2.imread of OpenCV {version} gives no pixels for {len(set(unread))} .exr file(s)",
        where=unread[0],
        allowed="depth that the loader can read",
        hint="set OPENCV_IO_ENABLE_OPENEXR=1 before cv2 is imported"
        if old
        else "OpenCV 5 has no OpenEXR: pip install 'opencv-python<5', or read .exr with the OpenEXR package",
    )
