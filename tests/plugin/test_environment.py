"""Strict and hostile surroundings: warnings as errors, a rootdir that cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import HANGS, ITEMS, start_pytest

ALL_GREEN = f"*{len(ITEMS)} passed*"


def test_warnings_as_errors_do_not_break_a_run(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """In a process that has imported nothing yet, with the user's filterwarnings = error."""
    tiny()
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    session = start_pytest("--overfit-config", "tiny.yaml", folder=pytester.path, warm=False)
    output, _ = session.communicate(timeout=HANGS)
    pytest.LineMatcher(output.splitlines()).fnmatch_lines([ALL_GREEN])
    assert " warning" not in output.splitlines()[-1]


def test_warnings_as_errors_on_the_command_line(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """pytest -W error."""
    tiny()
    session = start_pytest("--overfit-config", "tiny.yaml", "-W", "error", folder=pytester.path, warm=False)
    output, _ = session.communicate(timeout=HANGS)
    pytest.LineMatcher(output.splitlines()).fnmatch_lines([ALL_GREEN])


def test_the_users_own_warnings_are_still_seen(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A model that warns is an error under filterwarnings = error, and a warning otherwise."""
    tiny(replace=(("tests.support.tiny.Memoriser", "warner.Warner"),))
    pytester.makepyfile(
        warner="""
        import warnings
        from tests.support.tiny import Memoriser

        class Warner(Memoriser):
            def forward(self, images):
                warnings.warn("flash attention is not compiled in", UserWarning, stacklevel=1)
                return super().forward(images)
        """
    )
    result = pytester.runpytest_inprocess(
        "--overfit-config", "tiny.yaml", "-k", "supervised or finite", "-W", "default"
    )
    result.assert_outcomes(passed=2, deselected=len(ITEMS) - 2)
    result.stdout.fnmatch_lines(["*warner.py:*: UserWarning: flash attention is not compiled in"])
    strict = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "supervised or finite", "-W", "error")
    strict.assert_outcomes(failed=1, skipped=1, deselected=len(ITEMS) - 2)
    strict.stdout.fnmatch_lines(["E*UserWarning: flash attention is not compiled in"])


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder that everybody can reach, and only root can write."""
    folder = Path(tempfile.mkdtemp(prefix="overfit-readonly-"))
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is Linux's")
def test_a_read_only_rootdir_costs_only_the_log_folder(
    pytester: pytest.Pytester, tiny: TinyConfig, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is green, and a note says where its TensorBoard files are."""
    shutil.copy(tiny(), foreign / "tiny.yaml")
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root can write everywhere, and there is no setpriv")
        unprivileged = write_unprivileged_python(foreign)
        if subprocess.run([unprivileged, "-c", "import pytest"], capture_output=True, check=False).returncode:
            pytest.skip(f"root can write everywhere, and nobody else can read {sys.prefix}")
        monkeypatch.setattr(sys, "executable", unprivileged)
    foreign.chmod(0o555)
    scratch = Path(tempfile.mkdtemp(prefix="overfit-scratch-"))
    scratch.chmod(0o777)
    session = start_pytest(
        "--overfit-config", "tiny.yaml", folder=foreign, warm=False, TMPDIR=str(scratch), HOME=str(scratch),
        PYTHONDONTWRITEBYTECODE="1", PYTEST_DEBUG_TEMPROOT=str(scratch),
    )  # fmt: skip
    output, _ = session.communicate(timeout=HANGS)
    shutil.rmtree(scratch)
    pytest.LineMatcher(output.splitlines()).fnmatch_lines(
        [
            "note: *overfit_logs* cannot be written (Permission denied): TensorBoard files are in *",
            "tensorboard --logdir */tiny",
            ALL_GREEN,
        ]
    )
    assert [path.name for path in foreign.iterdir() if path.suffix != ".sh"] == ["tiny.yaml"]


def write_unprivileged_python(folder: Path) -> str:
    """A script that runs this interpreter as nobody."""
    script = folder / "python.sh"
    nobody = "--reuid=65534 --regid=65534 --clear-groups"
    script.write_text(f'#!/bin/sh\nexec setpriv {nobody} {sys.executable} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return str(script)
