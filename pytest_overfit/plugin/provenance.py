"""What a record says of where it comes from: the command that repeats its run, and what that ran on."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_overfit.plugin.options import OPTIONS
from pytest_overfit.plugin.state import SessionState

OF_THE_REPORT = (
    "--overfit-report", "--overfit-save", "--overfit-compare", "--overfit-compare-fail", "--overfit-lang",
    "--overfit-log-dir", "--overfit-explain",
)  # fmt: skip


def command_of(session: SessionState, title: str, *, of_config: bool = True) -> str:
    """The command that repeats a run, from the folder that pytest was started in; secrets as ``***``.

    Args:
        title: the config file, or the test.
        of_config: the run is under a config; else none of the session's, and no key of one, has a part in it.
    """
    from pytest_overfit.settings.secret import told_override

    left_out = OF_THE_REPORT if "::" in title and of_config else (*OF_THE_REPORT, "--overfit-config")
    given = iter(session.arguments)
    kept: list[str] = []
    for argument in given:
        name, equals, _ = argument.partition("=")
        if name in OPTIONS:
            value = [] if equals or OPTIONS[name].get("action") == "store_true" else [next(given, "")]
            if name == "--overfit-set":
                argument = f"{name}={told_override(argument.partition('=')[2])}" if equals else name
                value = [told_override(text) for text in value]
            key = (value or [argument.partition("=")[2]])[0]
            of_a_config = name == "--overfit-set" and not of_config and not key.lstrip("+~").startswith("overfit.")
            kept += [] if name in left_out or of_a_config else [argument, *value]
    path, _, rest = title.partition("::")
    with suppress(ValueError):  # another drive
        path = Path(os.path.relpath(session.root / path, session.folder)).as_posix()
    return shlex.join(["pytest", f"{path}::{rest}" if rest else path, *map(session.hide, kept)])


def environment() -> Mapping[str, str]:
    """What a run runs on, and the commit it was started in; nothing of the environment's variables."""
    commit = commit_of(Path.cwd())
    return {
        "pytest-overfit": version("pytest-overfit"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "pytest": pytest.__version__,
        "torch": version("torch"),
        "numpy": version("numpy"),
        **({"commit": commit} if commit else {}),
    }


def commit_of(folder: Path) -> str:
    """The commit that is checked out where a folder lies, as its files say, in 12 signs; empty where there is none.

    Example:
        >>> commit_of(Path("/"))
        ''
    """
    with suppress(OSError, UnicodeError):
        found = [at / ".git" for at in (folder, *folder.parents) if (at / ".git").exists()]
        if not found:
            return ""
        git = found[0]
        if git.is_file():  # a work tree, or a submodule
            git = found[0].parent / git.read_text(encoding="utf-8").partition(":")[2].strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        name = head.removeprefix("ref: ")
        common = git / (git / "commondir").read_text(encoding="utf-8").strip() if (git / "commondir").is_file() else git
        if name != head:
            packed = common / "packed-refs"
            lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
            listed = [line.split()[0] for line in lines if line.endswith(f" {name}")]
            loose = common / name
            head = loose.read_text(encoding="utf-8").strip() if loose.is_file() else "".join(listed[:1])
        return head[:12] if all(sign in "0123456789abcdef" for sign in head) else ""
    return ""
