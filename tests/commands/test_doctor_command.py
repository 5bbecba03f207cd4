"""`pytest-overfit doctor`: what is there is said as it is, and what is missing with the line that brings it."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from pytest_overfit.cli import main
from pytest_overfit.commands import doctor_command


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.chdir(folder)
    return main(["doctor"]), capsys.readouterr().out


def test_a_sound_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This one: every requirement, the devices, both readers of .exr, and pytest in the folder."""
    code, said = told(monkeypatch, tmp_path, capsys)
    assert code == 0, said
    assert f"ok    torch {torch.__version__}" in said
    assert "ok    OpenEXR reads what it has written" in said
    assert "reads .exr" in said or "reads no .exr" in said
    assert "ok    pytest starts here (no ini file)" in said
    assert said.endswith("all that is needed is there\n")


def test_a_typo_of_the_ini_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pytest says it."""
    (tmp_path / "pytest.ini").write_text("[pytest]\noverfit_seds = 1\n")
    code, said = told(monkeypatch, tmp_path, capsys)
    assert code == 1
    assert "BAD   pytest does not start here: pytest.ini: overfit_seds" in said
    assert "did you mean overfit_seeds?" in said
    assert said.endswith("1 thing to mend\n")


def test_a_plugin_that_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an ini file."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:overfit\n")
    code, said = told(monkeypatch, tmp_path, capsys)
    assert code == 1
    assert "BAD   pytest starts here (pytest.ini): the plugin is not loaded" in said


def test_versions_that_do_not_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One too old, one missing, and one that may be missing."""
    real = metadata.version
    fake = {"torch": "2.0.1", "bokeh": "", "filelock": ""}

    def version(name: str) -> str:
        if fake.get(name, "there") == "":
            raise metadata.PackageNotFoundError(name)
        return fake.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(doctor_command, "folder", lambda: iter(()))
    code, said = told(monkeypatch, tmp_path, capsys)
    assert code == 1
    assert "BAD   torch 2.0.1: torch>=2.4 is wanted: pip install 'torch>=2.4'" in said
    assert "BAD   filelock is not installed: pip install 'filelock>=3.12'" in said
    assert '-     bokeh is not installed: pip install "pytest-overfit[pages]"' in said
    assert said.endswith("2 things to mend\n")


def test_a_look_that_breaks_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others go on."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1 // 0)
    code, said = told(monkeypatch, tmp_path, capsys)
    assert code == 1
    assert "BAD   devices: ZeroDivisionError" in said
    assert "ok    pytest starts here" in said
