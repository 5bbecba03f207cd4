"""From the title of a run to a folder: a name for every platform, and a new folder for its logs."""

from __future__ import annotations

import errno
import re
import tempfile
import time
from pathlib import Path

from pytest_overfit.errors import OverfitError

DEFAULT_FOLDER = "overfit_logs"
LEAST_BYTES = 2**16  # of room, for anything to be written at all
LONGEST = 80  # characters of the name of a log folder
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
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    try:
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is a file" if there.is_file() else "no such folder")
        _write_into(there)
    except OSError as error:
        raise OverfitError(
            error.strerror or str(error),
            where=f"{setting}: {folder}" if setting else folder,
            allowed="a folder that can be written",
            hint="name another folder, or make room in this one",
        ) from None


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
