"""Files of strangers: what is no regular file is refused before it is opened, and large ones before they are read."""

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pytest_overfit.errors import OverfitError, PairError
from pytest_overfit.report.page.images import pictures_of
from pytest_overfit.report.page.write import _write_changed
from pytest_overfit.report.record.folder import read_document, read_report
from pytest_overfit.report.record.saved import read_saved
from pytest_overfit.settings.problems import Unusable
from pytest_overfit.trainer.build import load_checkpoint
from pytest_overfit.trainer.config import CheckpointConfig
from pytest_overfit.trainer.config_file import read_text
from pytest_overfit.two_view.pair.index import read_index
from pytest_overfit.two_view.pair.readers import read_camera, read_depth, read_image, read_labels
from pytest_overfit.untrusted.files import native_output, open_regular, open_to_append, read_regular

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices of POSIX")


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # at most about a hundred characters
    return path


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


ODD: dict[str, Callable[[Path], Path]] = {
    "a directory": _directory,
    "a named pipe (FIFO)": _fifo,
    "a device": lambda path: Path("/dev/zero"),
    "a socket": _socket,
}
READERS: dict[str, Callable[[Path], Any]] = {
    "record": read_document,
    "saved": read_saved,
    "config": read_text,
    "index": read_index,
    "camera": read_camera,
    "depth": read_depth,
    "image": read_image,
    "labels": read_labels,
    "checkpoint": lambda path: load_checkpoint(nn.Linear(1, 1), CheckpointConfig(path)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ODD)
def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reader: str) -> None:
    """Every reader says what it was given in place of a file, at once, with its own kind of error."""
    monkeypatch.chdir(tmp_path)
    path = ODD[kind](tmp_path / "odd")
    with pytest.raises((OverfitError, Unusable)) as error:
        READERS[reader](path)
    given: Any = error.value
    said = given.problems[0].line("a.yaml") if isinstance(given, Unusable) else str(given)
    if reader == "record" and kind == "a directory":  # the folder of a run
        assert "no such file" in said.lower()
    else:
        assert kind in said
        assert "allowed: a " in said


def test_a_record_in_a_report_that_is_a_pipe(tmp_path: Path) -> None:
    """A report folder with a pipe in the place of a record is refused, with and without a session to look for."""
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "record.json")
    for session in (None, "s"):
        with pytest.raises(OverfitError, match="named pipe"):
            read_report(tmp_path, session=session)


def test_the_size_is_bounded_before_anything_is_read(tmp_path: Path) -> None:
    """A file that is larger than the bound is refused by its size: a sparse terabyte costs nothing."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)
    for reader in (read_document, read_saved, read_index, read_camera, read_depth, read_image):
        with pytest.raises(OverfitError, match=f"{2**40} bytes"):
            reader(path)
    with pytest.raises(Unusable, match="bytes"):
        read_text(path)


def test_what_grows_while_it_is_read(tmp_path: Path) -> None:
    """Files of /proc say that they are empty, and are not."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("Linux has such files")
    with pytest.raises(PairError) as error:
        read_regular("/proc/self/status", most=8, error=PairError)
    assert str(error.value) == "/proc/self/status: more than 8 bytes\n  allowed: at most 8 bytes"


def test_missing_and_unnameable_files() -> None:
    """A file that is not there has the hint of its reader; a name that cannot be one is an error of ours too."""
    with pytest.raises(OverfitError) as error:
        open_regular("nowhere", hint="look elsewhere")
    assert str(error.value) == "nowhere: no such file\n  next: look elsewhere"
    with pytest.raises(OverfitError, match="cannot be read"):
        open_regular("a\0b")


def test_what_a_library_says_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    """What C code writes to the standard error does not reach it, and what Python writes before and after does."""
    print("before", file=sys.stderr)
    with native_output() as said:
        os.write(2, b"bad chunk\n\nat 3\n")
        print("Warning: no pixels")
    print("after", file=sys.stderr)
    assert said == ["bad chunk", "at 3", "Warning: no pixels"]
    assert capfd.readouterr() == ("", "before\nafter\n")


def test_no_standard_error_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a standard error keeps what is printed, and goes on."""

    def closed(handle: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with native_output() as said:
        print("printed")
    assert said == ["printed"]


def test_pipes_among_the_files_of_a_report(tmp_path: Path) -> None:
    """In the place of a picture one is missing; in the place of a script it is replaced."""
    os.mkfifo(tmp_path / "frame_0_image.png")
    assert pictures_of(tmp_path, ["frame_0_image.png"]).missing == ("frame_0_image.png",)
    os.mkfifo(tmp_path / "own.js")
    assert _write_changed(tmp_path / "own.js", "text").read_text() == "text"


def test_lines_are_added_to_files_and_to_pipes_that_are_read(tmp_path: Path) -> None:
    """A CI service names a file; a person may name a pipe, and one that nobody reads is an error at once."""
    path = tmp_path / "summary.md"
    for _ in range(2):
        with open_to_append(path) as file:
            file.write("é\n")
    assert path.read_text(encoding="utf-8") == "é\né\n"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        open_to_append(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with open_to_append(tmp_path / "pipe") as file:
        file.write("line\n")
    assert os.read(reader, 100) == b"line\n"
    os.close(reader)
