"""The record of a run while it goes: whole at every moment, with what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.report.record import recorder as recorders
from pytest_overfit.report.record.folder import read_document
from pytest_overfit.report.record.recorder import Recorder
from tests.report.record.runs import document, result


def test_a_record_is_there_before_the_first_step(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, document(None), planned=100)
    found = read_document(tmp_path / "runs" / recorder.document.id)
    assert (found.state, found.result, found.verdict) == ("running", None, "failed")


def test_a_run_that_is_killed_leaves_its_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was told until then, as curves; nothing is judged, so nothing has passed."""
    monkeypatch.setattr(recorders, "WRITE_SECONDS", -1.0)
    recorder = Recorder(tmp_path, document(None), planned=100).of_seed(3)
    recorder.on_steps(0, [{"objective": 2.0, "lr": 0.1, "grad_norm/0": 1.0}, {"objective": 1.0, "lr": 0.1}])
    recorder.on_val(2, {"objective": 1.5})
    recorder.on_steps(2, [{"objective": 0.5, "lr": 0.1}])
    found = read_document(tmp_path / "runs" / recorder.document.id)
    assert found.state == "running"
    assert found.result is not None
    record = found.result.record
    assert (record.seed, record.steps, record.planned_steps) == (3, 3, 100)
    assert record.curves == {"objective": (2.0, 1.0, 0.5)}
    assert (record.val_steps, record.val_curves) == ((2,), {"objective": (1.5,)})
    assert record.learning_rate == (0.1, 0.1, 0.1)
    assert found.verdict == "failed"


def test_the_verdict_takes_the_place_of_what_was_known(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, document(None), planned=100)
    recorder.on_steps(0, [{"objective": 2.0}])
    recorder.end(result())
    found = read_document(tmp_path / "runs" / recorder.document.id)
    assert (found.state, found.verdict, found.result) == ("finished", "passed", result())


def test_an_error_is_kept_with_the_curves(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, document(None), planned=100)
    recorder.on_steps(0, [{"objective": 2.0}])
    recorder.broke(RuntimeError("out of <memory>"))
    found = read_document(tmp_path / "runs" / recorder.document.id)
    assert (found.verdict, found.error) == ("failed", "RuntimeError: out of <memory>")
    assert found.result is not None
    assert found.result.record.curves == {"objective": (2.0,)}
