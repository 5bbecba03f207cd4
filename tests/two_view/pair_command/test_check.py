"""``pytest-overfit pair check``: the guide's numbers, and what is wrong with a pair."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_overfit.two_view import pair_command
from tests.shared_data import shared_data
from tests.two_view.pair_command.support import run


def test_check_prints_the_guides_numbers(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check prints pairs, loader length, name, every shape at the guide's size, and depth per image."""
    code, out, _ = run(capsys, "pair", "check", pair_folder)
    assert code == 0
    lines = out.splitlines()
    assert lines[:13] == [
        "pairs: 1",
        "loader length: 1",
        "seq_name: aerial_megadepth_0002_0",
        "batch:",
        "  images: (1, 2, 3, 476, 518)",
        "  depths: (1, 2, 476, 518)",
        "  extrinsics: (1, 2, 3, 4)",
        "  intrinsics: (1, 2, 3, 3)",
        "  cam_points: (1, 2, 476, 518, 3)",
        "  world_points: (1, 2, 476, 518, 3)",
        "  point_masks: (1, 2, 476, 518)",
        "  seq_name: ['aerial_megadepth_0002_0']",
        "  ids: (1, 2)",
    ]
    for view, (line, nearest) in enumerate(zip(lines[13:15], (20.0, 8.0), strict=True)):
        head, span = line.split(" in ")
        counts, share = head.removeprefix(f"  image {view}: ").split(" valid depths (")
        valid, total = (int(number) for number in counts.split("/"))
        assert total == 476 * 518
        assert share == f"{100 * valid / total:.1f} %)"
        low, high = (float(number) for number in span.removesuffix(" m").strip("[]").split(", "))
        assert nearest < low < high < 70
    assert sum(line.startswith("  ok     ") for line in lines) == 6
    assert lines[-1] == "the pair is sound"


def test_golden_pair_has_the_published_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The cut-out pair of the reference is sound and has the guide's sequence name."""
    code, out, _ = run(
        capsys, "pair", "check", shared_data("golden", "pair0"), "--img-size", 112, "--aspect-ratio", 0.93
    )
    assert code == 0
    assert "seq_name: aerial_megadepth_0001_0" in out
    assert "  images: (1, 2, 3, 98, 112)" in out


def test_size_of_the_batch(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Width, ratio and patch size decide the shapes."""
    words = ["--img-size", 224, "--aspect-ratio", 0.75, "--patch-size", 16]
    assert "  images: (1, 2, 3, 160, 224)\n" in run(capsys, "pair", "check", pair_folder, *words)[1]


def test_problems_exit_with_1(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cameras that contradict the depth fail the check, with the sentence among the problems."""
    for path in (pair_folder / "0002").glob("*.npz"):
        with np.load(path) as file:
            intrinsics, pose = file["intrinsics"], file["cam2world"]
        np.savez(path, intrinsics=intrinsics, cam2world=np.linalg.inv(pose))
    code, out, err = run(capsys, "pair", "check", pair_folder, "--img-size", 112)
    assert (code, err) == (1, "")
    assert "\n  FAILED geometry of aerial.jpeg and ground.jpeg: " in out
    assert "\nproblem: depth and cameras contradict: " in out
    assert "\ncamera-convention (shown): the views agree once the extrinsics are inverted" in out
    assert "\n  pytest-overfit explain camera-convention\n" in out
    assert out.endswith("\n1 problem(s)\n")


def test_missing_mask(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a mask the check fails while the sky is to be removed; the sky that stays is found by itself."""
    path = pair_folder / "seg" / "0002" / "ground.jpeg.png"
    path.unlink()
    for kind in ("not there", "a directory", "a named pipe (FIFO)", "a socket"):
        with contextlib.ExitStack() as closing:
            if kind == "a directory":
                path.mkdir()
                closing.callback(path.rmdir)
            elif kind == "a named pipe (FIFO)":
                os.mkfifo(path)
                closing.callback(path.unlink)
            elif kind == "a socket":
                closing.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
                closing.callback(path.unlink)
            code, out, _ = run(capsys, "pair", "check", pair_folder, "--img-size", 112)
        assert code == 1
        assert f"problem: remove_sky is on, but ground.jpeg has no mask ({path} is {kind}): its sky keeps" in out
        assert "contradict" not in out  # an echo: sky is where no other view has it
        assert out.endswith("\n1 problem(s)\n")
    code, out, _ = run(capsys, "pair", "check", pair_folder, "--img-size", 112, "--no-remove-sky")
    assert code == 1
    assert "has no mask" not in out
    assert "problem: depth and cameras contradict" in out


class _OpenCV:
    """Stands in for a version of OpenCV: imread gives `result`, or raises it."""

    __version__ = "4.9.9"
    IMREAD_UNCHANGED = -1

    class error(Exception):  # noqa: N801, N818 - its name in cv2
        pass

    def __init__(self, result: Any) -> None:
        self.result = result
        self.switch = ""

    def imread(self, _: str, flag: int) -> Any:
        assert flag == -1
        self.switch = os.environ["OPENCV_IO_ENABLE_OPENEXR"]
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize("before", [None, "0"])
@pytest.mark.parametrize(
    ("result", "line"),
    [
        (np.zeros((2, 2), np.float32), "note: OpenCV 4.9.9 reads a.exr as float32 with OPENCV_IO_ENABLE_OPENEXR=1"),
        (
            None,
            "note: OpenCV 4.9.9 cannot read a.exr, even with OPENCV_IO_ENABLE_OPENEXR=1 (pytest-overfit does not need",
        ),
        (_OpenCV.error(), "note: OpenCV 4.9.9 cannot read a.exr, even"),
    ],
)
def test_line_about_opencv(result: Any, line: str, before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says whether cv2.imread reads the depth; the environment is as before."""
    fake = _OpenCV(result)
    monkeypatch.setitem(sys.modules, "cv2", fake)
    monkeypatch.delenv("OPENCV_IO_ENABLE_OPENEXR", raising=False)
    if before is not None:
        monkeypatch.setenv("OPENCV_IO_ENABLE_OPENEXR", before)
    (text,) = pair_command._opencv_lines(Path("a.exr"))
    assert text.startswith(line)
    assert fake.switch == "1"
    assert os.environ.get("OPENCV_IO_ENABLE_OPENEXR") == before


def test_no_line_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenCV cannot be imported nothing is said about it."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert pair_command._opencv_lines(Path("a.exr")) == []


@pytest.mark.parametrize("verb", ["check", "show", "create"])
def test_links_are_followed_where_the_command_says(
    verb: str, pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scene on another disk is refused with the option that allows it, and with that option read."""
    root, disk = tmp_path / "linked", tmp_path / "disk2"
    shutil.copytree(pair_folder, root)
    scene = next(path for path in root.iterdir() if path.is_dir() and path.name != "seg")
    scene.rename(disk)
    scene.symlink_to(disk)
    whole = {
        "check": ["check", root],
        "show": ["show", root, "--output", tmp_path / "sheet.png"],
        "create": [
            "create",
            "--source-root",
            root,
            "--source-seg-root",
            root / "seg",
            "--output-root",
            tmp_path / "new",
        ],
    }[verb]
    code, _, error = run(capsys, "pair", *whole)
    assert code == 1
    assert f"--follow-links {disk}" in error
    assert run(capsys, "pair", *whole, "--follow-links", tmp_path / "elsewhere")[0] == 1
    assert run(capsys, "pair", *whole, "--follow-links", disk)[0] == 0
    assert run(capsys, "pair", *whole, "--follow-links")[0] == 0


def test_every_broken_file_is_told(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted(pair_folder.glob("0002/*.exr"))
    first.write_bytes(first.read_bytes()[:5000])
    camera = second.with_suffix(".npz")
    camera.write_bytes(b"no zip")
    code, out, _ = run(capsys, "pair", "check", pair_folder)
    assert code == 1
    told = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert [name in line for name, line in zip((first.name, camera.name), told, strict=True)] == [True, True]
