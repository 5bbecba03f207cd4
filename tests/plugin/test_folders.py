"""Report, log and save folders that cannot be written: refused before training, else a line, and never a verdict."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_overfit.report.record.folder import read_report
from tests.plugin.conftest import TinyConfig
from tests.support.sessions import HANGS, start_pytest

MODEL = """
import resource, signal
import pytest, torch
from torch import nn
from torch.nn import functional as F
from pytest_overfit.trainer import build

FULL = {full}


def test_learns(overfit):
    torch.manual_seed(0)
    net, steps = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1)), []

    def loss(model, batch):
        steps.append(1)
        if len(steps) == FULL:  # from here on no file takes another byte
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return F.mse_loss(model(batch[0]), batch[1])

    overfit(net, (torch.randn(8, 4), torch.randn(8, 1)), loss, optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
            max_steps=400, diagnose=False, objective=0.01)
"""


@pytest.fixture
def blocked(pytester: pytest.Pytester) -> Path:
    """A file where a folder is asked for."""
    path = pytester.path / "in_the_way.txt"
    path.write_text("")
    return path


@pytest.mark.parametrize("option", ["--overfit-log-dir", "--overfit-report"])
@pytest.mark.parametrize("below", ["", "/logs"])
def test_options_are_refused_before_anything_runs(
    pytester: pytest.Pytester, blocked: Path, option: str, below: str
) -> None:
    """A folder that cannot be made is a usage error: what was seen, what is allowed, what next."""
    pytester.makepyfile("def test_a(): assert False, 'it ran'")
    result = pytester.runpytest_inprocess(f"{option}={blocked}{below}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([
        f"*{blocked}{below}: {blocked} is a file", "*allowed: a folder that can be written",
        "*next: name another folder*",
    ])  # fmt: skip
    result.stdout.no_fnmatch_line("*it ran*")


def test_the_ini_file_and_a_config_are_refused_too(pytester: pytest.Pytester, blocked: Path, tiny: TinyConfig) -> None:
    """Whoever names the log folder is named."""
    pytester.makepyfile("def test_a(): pass")
    result = pytester.runpytest_inprocess("-o", f"overfit_log_dir={blocked}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*ini key overfit_log_dir: {blocked}: {blocked} is a file"])
    tiny()
    result = pytester.runpytest_inprocess(
        "--overfit-config", "tiny.yaml", "--overfit-set", f"logging.log_dir={blocked}"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*tiny.yaml, logging.log_dir: {blocked}: {blocked} is a file"])
    elsewhere = pytester.path / "logs"
    result = pytester.runpytest_inprocess(
        "--overfit-config", "tiny.yaml", "--overfit-set", f"logging.log_dir={blocked}",
        f"--overfit-log-dir={elsewhere}", "--collect-only",
    )  # fmt: skip
    assert result.ret == pytest.ExitCode.OK
    assert not elsewhere.exists()


def test_a_disk_that_is_full_before_the_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder can be made on it, and takes no bytes: that is found too."""
    monkeypatch.setattr("pytest_overfit.report.folders.LEAST_BYTES", -1)  # no such number of bytes: as if it were full
    pytester.makepyfile("def test_a(): pass")
    monkeypatch.setattr("pytest_overfit.report.folders._write_into", _full)
    for option in ("--overfit-log-dir", "--overfit-report"):
        result = pytester.runpytest_inprocess(option, "logs")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*logs: No space left on device"])


def _full(folder: Path) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_disk_that_fills_up_in_the_middle(pytester: pytest.Pytester) -> None:
    """The model is judged by itself: the test passes, one line says what was not written, the first record is kept."""
    pytester.makepyfile(MODEL.format(full=30))
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    session = start_pytest(  # whose output is a pipe: files are limited
        "-s", "-p", "no:cacheprovider", "--overfit-report", "report", "--overfit-log-dir", "logs", folder=pytester.path
    )
    output, _ = session.communicate(timeout=HANGS)
    assert session.returncode == pytest.ExitCode.OK, output
    pytest.LineMatcher(output.splitlines()).fnmatch_lines([
        "note: not written: TensorBoard files in *logs: File too large",
        "note: not written: the record in *: File too large",
        "not written: the report: File too large",
    ])  # fmt: skip
    (document,) = read_report(pytester.path / "report")
    assert document.state == "running"
    assert not [path for path in (pytester.path / "report").rglob("*") if path.name.startswith(".record")]


@pytest.mark.parametrize("lost", ["logs", "report"])
def test_a_folder_that_vanishes(pytester: pytest.Pytester, lost: str) -> None:
    """Whoever cleans up in the middle of a run gets the other folder, and the verdict."""
    source = MODEL.format(full=30).replace(
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))",
        f"import shutil, pathlib; shutil.rmtree({lost!r}); pathlib.Path({lost!r}).touch()",
    )
    pytester.makepyfile(source)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    result = pytester.runpytest_inprocess("--overfit-report", "report", "--overfit-log-dir", "logs")
    result.assert_outcomes(passed=1)
    if lost == "report":
        result.stdout.fnmatch_lines(["note: not written: the record in *: *"])
    else:
        result.stdout.fnmatch_lines(["note: not written: TensorBoard files in *logs: *"])
        assert [document.verdict for document in read_report(pytester.path / "report")] == ["passed"]


def test_a_writer_of_ours_that_breaks(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours in a writer is a line that asks for a report; the verdict stands, and the record has it."""
    monkeypatch.setenv("PYTEST_OVERFIT_RAISE", "")
    monkeypatch.setattr("pytest_overfit.report.board.tensorboard.guide_names", _broken)
    pytester.makepyfile(MODEL.format(full=0))
    result = pytester.runpytest_inprocess("--overfit-report", "report", "--overfit-log-dir", "logs")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([
        "note: not written: TensorBoard files in *: KeyError: 'broken' (*); this is a mistake of pytest-overfit's*"
    ])  # fmt: skip
    assert [document.verdict for document in read_report(pytester.path / "report")] == ["passed"]


def test_a_page_of_ours_that_breaks(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session ends as its tests do, without an INTERNALERROR; the records are there."""
    monkeypatch.setenv("PYTEST_OVERFIT_RAISE", "")
    monkeypatch.setattr("pytest_overfit.report.page.write.write_pages", lambda *args, **kwargs: _broken(args))
    pytester.makepyfile(MODEL.format(full=0))
    result = pytester.runpytest_inprocess("--overfit-report", "report")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["not written: the report: KeyError: 'broken' (*); this is a mistake*"])
    assert [document.verdict for document in read_report(pytester.path / "report")] == ["passed"]


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("pytest_overfit.plugin.observers.keep_properties", "note: not written: the properties of the JUnit report"),
        ("pytest_overfit.plugin.observers.debug_lines", "note: not written: the numbers of the run"),
        ("pytest_overfit.report.record.recorder.Recorder.end", "note: not written: the record"),
        ("pytest_overfit.plugin.terminal._reports", "not written: the rest of the summary"),
    ],
)
def test_a_text_of_ours_that_breaks(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, place: str, what: str
) -> None:
    """Whatever is said of a run after its verdict: a line, and the test passes."""
    monkeypatch.setenv("PYTEST_OVERFIT_RAISE", "")
    monkeypatch.setattr(place, lambda *args, **kwargs: _broken(args))
    pytester.makepyfile(MODEL.format(full=0))
    result = pytester.runpytest_inprocess("--overfit-report", "report")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([f"{what}: KeyError: 'broken' (*); this is a mistake*"])


def _broken(terms: object) -> None:
    raise KeyError("broken")


INTERRUPTED = {
    "the probe before the run": ("pytest_overfit.run.supervision_probe.probe_influence", None),
    "the inspector after the run": ("pytest_overfit.diagnose.inspector.RunInspector.trained", None),
    "the rules": ("pytest_overfit.api.find_causes", None),
    "a writer": ("pytest_overfit.report.board.tensorboard.TensorBoardLog.on_result", None),
    "the record": ("pytest_overfit.report.record.recorder.Recorder.end", None),
}


@pytest.mark.parametrize("place", INTERRUPTED)
def test_ctrl_c_outside_of_the_loop(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """The record says interrupted, the session ends with 2, and the model has its weights back."""

    def interrupted(*args: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(INTERRUPTED[place][0], interrupted)
    source = MODEL.format(full=0).replace(", diagnose=False", "")
    source = source.replace("    overfit(net", "    before = [p.clone() for p in net.parameters()]\n    overfit_(net")
    source = source.replace("overfit_(net", "run(overfit, before, net").replace("FULL =", RESTORED + "\n\nFULL =")
    pytester.makepyfile(source)
    result = pytester.runpytest_inprocess(
        "--overfit-report", "report", "--overfit-log-dir", "logs", no_reraise_ctrlc=True
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert (pytester.path / "restored").exists()
    (document,) = read_report(pytester.path / "report")
    assert (document.state, document.verdict) == ("interrupted", "failed")


@pytest.mark.parametrize(
    "place", ["pytest_overfit.two_view.pair.create.create_pair", "pytest_overfit.run.training.nudged"]
)
def test_ctrl_c_under_a_config(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tiny: TinyConfig, place: str
) -> None:
    """While the pair is built there is no run yet: the record says interrupted all the same, as in the probes."""

    def interrupted(*args: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    tiny()
    monkeypatch.setattr(place, interrupted)
    result = pytester.runpytest_inprocess(
        "--overfit-config", "tiny.yaml", "--overfit-report", "report", no_reraise_ctrlc=True
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    (document,) = read_report(pytester.path / "report")
    assert (document.title, document.state, document.verdict) == ("tiny.yaml", "interrupted", "failed")


RESTORED = """
def run(overfit, before, net, *args, **keywords):
    import pathlib
    try:
        overfit(net, *args, **keywords)
    finally:
        if all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)):
            pathlib.Path("restored").touch()
"""


TOO_LONG = {"name": "9" * 5000, "path": "a/" * 2100 + "a"}
OPTIONS = (
    "--overfit-report=@", "--overfit-log-dir=@", "--overfit-config=@.yaml", "@.yaml", "@.yaml::camera",
    "--overfit-save=@", "--overfit-compare=@", "-o overfit_storage=@ --overfit-save=main",
    "-o overfit_storage=@ --overfit-compare=main", "-o overfit_report=@", "-o overfit_log_dir=@",
    "-o overfit_config=@.yaml",
)  # fmt: skip
KEYS = (
    "logging.log_dir=@", "overfit.import_roots=[@]", "overfit.pair.follow_links=[@]", "overfit.checkpoint=@",
    "overfit.pair.source_root=@", "checkpoint.resume_checkpoint_path=@", "model._target_=@.b",
    "data.train.dataset.dataset_configs[0].ROOT=@", "data.train.dataset.dataset_configs[0].split_file=@",
)  # fmt: skip


@pytest.mark.parametrize("bad", [*TOO_LONG.values(), "a\0b"], ids=[*TOO_LONG, "zero byte"])
@pytest.mark.parametrize("asked", [*OPTIONS, *KEYS])
def test_what_no_path_can_be_is_4(pytester: pytest.Pytester, tiny: TinyConfig, asked: str, bad: str) -> None:
    """Every option, ini key and key that names a file or a folder: a usage error, and nothing runs."""
    tiny()
    pytester.makepyfile("def test_a(): assert False, 'it ran'")
    given = asked.split() if asked in OPTIONS else ["--overfit-config=tiny.yaml", "--overfit-set", asked]
    result = pytester.runpytest_inprocess(*(each.replace("@", bad) for each in given))
    said = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "INTERNALERROR" not in said
    assert "it ran" not in said


def test_what_is_left_unasked_is_hidden_from_git(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """In a repository with no .gitignore of its own git sees nothing new; a folder that somebody named is theirs."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("no git")
    tiny()
    subprocess.run([git, "init", "-q"], cwd=pytester.path, check=True)
    short = ("-p", "no:cacheprovider", "-o", "overfit_keep=true")
    pytester.runpytest_inprocess("tiny.yaml", "--overfit-set=overfit.budget.max_steps=5", *short)
    assert (pytester.path / "overfit_logs" / "tiny").is_dir()
    assert (pytester.path / ".overfit" / "last" / "index.html").is_file()
    shown = subprocess.run(
        [git, "status", "--porcelain", "-uall"], cwd=pytester.path, check=True, capture_output=True, text=True
    ).stdout
    assert [line for line in shown.splitlines() if "__pycache__" not in line] == ["?? tiny.yaml"]
    pytester.runpytest_inprocess("tiny.yaml", "-k", "finite", "--overfit-log-dir=mine", *short)
    assert not (pytester.path / "mine" / ".gitignore").exists()
