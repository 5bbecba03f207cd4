"""From the title of a run to a folder: a name for every platform, and a new folder for its logs."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

DEFAULT_FOLDER = "overfit_logs"
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


def run_folder(log_dir: Path, name: str) -> tuple[Path, str | None]:
    """A new folder for one run below ``log_dir``, and a note where it had to go elsewhere because that is read-only."""
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
            return folder
    raise OSError(f"no free folder name below {parent}")
