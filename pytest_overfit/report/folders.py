"""From the title of a run to a folder: a name for every platform, and a new folder for its logs."""

from __future__ import annotations

import errno
import re
import tempfile
import time
from pathlib import Path

from pytest_overfit.errors import OverfitError
from pytest_overfit.untrusted.files import expect_name

DEFAULT_FOLDER = "overfit_logs"
LEAST_BYTES = 2**16  # of room, for anything to be written at all
LONGEST = 80  # characters of the name of a log folder
LONGEST_BELOW = 200  # of what is written below a folder that is asked for: runs, their names, their pictures
LONGEST_SHOWN = 300
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}


def folder_name(title: str, part: slice) -> str:
    """A folder name on every platform: letters, digits, dot, dash and underscore.

    Example:
        >>> folder_name("configs/a b.yaml::<camera>", slice(80))
        'configs_a_b.yaml_camera'

    Args:
        part: the characters to keep, the first or the last so many: paths on Windows end at 260.
    """
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", title)[part].strip(".-_") or "run"
    return f"_{readable}" if readable.partition(".")[0].upper() in RESERVED else readable


def refuse_unwritable(folder: Path, setting: str | None = None) -> None:
    """Writes into the folder, or into the one where it is to be made, before anything is trained; nothing is left.

    Args:
        setting: that names the folder.

    Raises:
        OverfitError: it cannot be made, or is read-only or full.
    """
    try:
        expect_name(folder / ("x" * LONGEST_BELOW))
        there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is a file" if there.is_file() else "no such folder")
        _write_into(there)
    except (OSError, ValueError) as error:  # a zero byte in the name is the latter
        raise OverfitError(
            getattr(error, "strerror", None) or str(error),
            where=f"{setting}: {shown_path(folder)}" if setting else shown_path(folder),
            allowed="a folder that can be written",
            hint="name another folder, or make room in this one",
        ) from None


def shown_path(path: Path) -> str:
    """A path as a message holds it: a very long one cut, signs that no screen shows as their escapes.

    Example:
        >>> shown_path(Path("a" * 1000)) == "a" * LONGEST_SHOWN + "..."
        True
    """
    text = str(path) if str(path).isprintable() else repr(str(path))[1:-1]
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def hide_from_git(folder: Path) -> None:
    """What nobody asked for stays out of their repository, as pytest's own cache does."""
    ignoring = folder / ".gitignore"
    if not ignoring.exists():
        ignoring.write_text("*\n", encoding="utf-8")


def _write_into(folder: Path) -> None:
    """Raises OSError where a folder takes no file: a full disk lets one be made, and takes no bytes."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(LEAST_BYTES))


def run_folder(log_dir: Path, name: str) -> tuple[Path, str | None]:
    """A new folder for one run below ``log_dir``, and a note where it had to go elsewhere because that is read-only or
    full.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        return _new_folder(log_dir / folder_name(name, slice(LONGEST)), stamp), None
    except OSError as error:
        spare = Path(tempfile.mkdtemp(prefix="pytest-overfit-"))
        note = f"{log_dir} cannot be written ({error.strerror or error}): TensorBoard files are in {spare}"
        return _new_folder(spare / folder_name(name, slice(LONGEST)), stamp), note


def _new_folder(parent: Path, stamp: str) -> Path:
    """Folders of one second are told apart by a number."""
    for attempt in range(1, 10_000):
        folder = parent / (stamp if attempt == 1 else f"{stamp}.{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                raise
        else:
            _write_into(folder)
            return folder
    raise OSError(f"no free folder name below {parent}")
