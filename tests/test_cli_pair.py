"""The command line: what it prints, what it exits with, and the config that it writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pytest_overfit import cli
from pytest_overfit.cli import main
from pytest_overfit.pair.index import read_index
from pytest_overfit.pair.render import RenderedSource, render_source
from tests.shared_data import shared_data


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RenderedSource:
    """A rendered source of 320 x 240 pixels; read only."""
    return render_source(tmp_path_factory.mktemp("source"), seed=2, width=320, height=240)


@pytest.fixture
def pair_folder(source: RenderedSource, tmp_path: Path) -> Path:
    """A pair that the command made, with its config."""
    folder = tmp_path / "pair"
    words = ["--source-root", str(source.source_root), "--output-root", str(folder), "--create-config"]
    assert main(["pair", "create", *words]) == 0
    return folder


def _run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        width, height = image.size
    return width, height


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_create_prints_the_pair_and_the_next_command(
    source: RenderedSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Creating a pair with a config names the pair, its images and the command that comes next."""
    folder = tmp_path / "out"
    words = ["--source-root", source.source_root, "--output-root", folder, "--create-config"]
    code, out, err = _run(capsys, "pair", "create", *words)
    assert (code, err) == (0, "")
    assert out == (
        f"aerial_megadepth_0002_0 in {folder}\n"
        "  0002/aerial.jpeg\n"
        "  0002/ground.jpeg\n"
        f"next: pytest --overfit-config {folder}/single_pair_test.yaml\n"
    )
    assert _files(folder) == {
        "train.npz",
        "val.npz",
        "single_pair_test.yaml",
        *(f"0002/{tag}.jpeg.{kind}" for tag in ("aerial", "ground") for kind in ("jpg", "exr", "npz")),
        *(f"seg/0002/{tag}.jpeg.png" for tag in ("aerial", "ground")),
    }


def test_underscores_and_explicit_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The guide's spelling with underscores is accepted, with a blank or `=` before the value."""
    root, seg = shared_data("real_rgbd", "cropped"), shared_data("real_rgbd", "cropped_seg")
    code, out, _ = _run(
        capsys, "pair", "create", f"--source_root={root}", "--source_seg_root", seg,
        "--source_npz", root / "val.npz", "--output_root", tmp_path / "my_out_put", "--pair_index=1",
    )  # fmt: skip
    assert code == 0
    assert out.startswith(f"aerial_megadepth_0002_0 in {tmp_path}/my_out_put\n  0002/frame-000150.jpeg\n")
    assert read_index(tmp_path / "my_out_put" / "train.npz").images == ("frame-000150.jpeg", "frame-000200.jpeg")


def test_defaults(source: RenderedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options the source is aerialmegadepth/cropped and the output single_pair_data, both in the cwd."""
    (tmp_path / "aerialmegadepth").symlink_to(source.source_root.parent)
    monkeypatch.chdir(tmp_path)
    assert main(["pair", "create"]) == 0
    assert (tmp_path / "single_pair_data" / "seg" / "0002" / "aerial.jpeg.png").is_file()


def test_render(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rendered pair needs no source, and its seed decides the scene."""
    assert _run(capsys, "pair", "create", "--render", "--seed", "4", "--output-root", tmp_path / "a")[0] == 0
    assert "0004/ground.jpeg.exr" in _files(tmp_path / "a")
    assert _run(capsys, "pair", "check", tmp_path / "a", "--img-size", "112")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pair", "create", "--render", "--source-root", "x"], "--render makes its own source"),
        (["pair", "create", "--seed", "3"], "--seed is the seed of --render"),
        (["pair", "create", "--pair-index", "one"], "invalid int value: 'one'"),
        (["pair", "create", "--source"], "unrecognized arguments: --source"),
        (["pair", "check"], "the following arguments are required: DIR"),
        (["pair", "show", "x", "--output", "sheet.jpg"], "--output sheet.jpg: the sheet is a PNG file, name it so"),
        (["pair", "show", "x", "--img-size", "wide"], "invalid int value: 'wide'"),
        (["pair"], "the following arguments are required: VERB"),
        ([], "the following arguments are required: pair"),
        (["pear"], "invalid choice: 'pear'"),
    ],
)
def test_usage_errors_exit_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that cannot be meant exits with 2 and says what is wrong with it."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_bad_input_is_one_message_without_traceback(
    source: RenderedSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be used exits with 1 and one clean message on stderr."""
    root = source.source_root
    code, out, err = _run(capsys, "pair", "create", "--source-root", root, "--pair-index", 7)
    assert (code, out) == (1, "")
    assert err == f"pytest-overfit: {root}/train.npz: pair_index 7 of 1 pairs\n  allowed: 0 to 0\n"
    code, out, err = _run(capsys, "pair", "check", tmp_path / "none")
    assert (code, out) == (1, "")
    assert err == f"pytest-overfit: {tmp_path}/none/train.npz: no such file\n"


def test_check_prints_the_guides_numbers(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check prints pairs, loader length, name, every shape at the guide's size, and depth per image."""
    code, out, _ = _run(capsys, "pair", "check", pair_folder)
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
    code, out, _ = _run(
        capsys, "pair", "check", shared_data("golden", "pair0"), "--img-size", 112, "--aspect-ratio", 0.93
    )
    assert code == 0
    assert "seq_name: aerial_megadepth_0001_0" in out
    assert "  images: (1, 2, 3, 98, 112)" in out


def test_size_of_the_batch(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Width, ratio and patch size decide the shapes."""
    words = ["--img-size", 224, "--aspect-ratio", 0.75, "--patch-size", 16]
    assert "  images: (1, 2, 3, 160, 224)\n" in _run(capsys, "pair", "check", pair_folder, *words)[1]


def test_problems_exit_with_1(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cameras that contradict the depth fail the check, with the sentence among the problems."""
    for path in (pair_folder / "0002").glob("*.npz"):
        with np.load(path) as file:
            intrinsics, pose = file["intrinsics"], file["cam2world"]
        np.savez(path, intrinsics=intrinsics, cam2world=np.linalg.inv(pose))
    code, out, err = _run(capsys, "pair", "check", pair_folder, "--img-size", 112)
    assert (code, err) == (1, "")
    assert "\n  FAILED geometry of aerial.jpeg and ground.jpeg: " in out
    assert "\nproblem: depth and cameras contradict: " in out
    assert out.endswith("\n1 problem(s)\n")


def test_missing_mask(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a mask the check fails while the sky is to be removed; the sky that stays is found by itself."""
    (pair_folder / "seg" / "0002" / "ground.jpeg.png").unlink()
    code, out, _ = _run(capsys, "pair", "check", pair_folder, "--img-size", 112)
    assert code == 1
    assert "problem: remove_sky is on, but ground.jpeg has no mask" in out
    code, out, _ = _run(capsys, "pair", "check", pair_folder, "--img-size", 112, "--no-remove-sky")
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
    monkeypatch.setattr(cli, "find_spec", lambda name: name)
    monkeypatch.delenv("OPENCV_IO_ENABLE_OPENEXR", raising=False)
    if before is not None:
        monkeypatch.setenv("OPENCV_IO_ENABLE_OPENEXR", before)
    (text,) = cli._opencv_lines(Path("a.exr"))
    assert text.startswith(line)
    assert fake.switch == "1"
    assert os.environ.get("OPENCV_IO_ENABLE_OPENEXR") == before


def test_no_line_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenCV is not installed nothing is said about it."""
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert cli._opencv_lines(Path("a.exr")) == []


def _common(path: Path) -> dict[str, Any]:
    """The config as OmegaConf resolves it."""
    from omegaconf import OmegaConf

    resolved = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _splits(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [config["data"][split]["dataset"]["dataset_configs"][0] for split in ("train", "val")]


def test_config_points_at_the_pair(pair_folder: Path) -> None:
    """The config lies beside the pair and names it by relative paths; its numbers are numbers."""
    config = _common(pair_folder / "single_pair_test.yaml")
    train, val = _splits(config)
    assert (train["ROOT"], train["split_file"], val["split_file"]) == (".", "./train.npz", "./val.npz")
    assert train["segmentation_root"] == "./seg"
    assert train["remove_sky"] is True
    assert config["optim"]["optimizer"]["lr"] == 2e-3
    assert config["data"]["train"]["common_config"]["img_size"] == config["img_size"] == 224


def test_config_is_accepted(pair_folder: Path) -> None:
    """The plugin's own loader takes the config as it is, and both splits lead to the pair."""
    from pytest_overfit.config.loading import load_config

    config = load_config(pair_folder / "single_pair_test.yaml")
    assert config.train.root == pair_folder
    assert config.train.split_file == pair_folder / "train.npz"
    assert config.val is not None
    assert config.val.split_file == pair_folder / "val.npz"
    assert config.overfit.pair.source == "dataset"


def test_config_somewhere_else(source: RenderedSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config at another path names the pair relative to itself, whatever characters the path has."""
    folder, path = tmp_path / "out: of #the way", tmp_path / "configs" / "deep" / "mine.yaml"
    words = ["--source-root", source.source_root, "--output-root", folder, "--create-config", path]
    code, out, _ = _run(capsys, "pair", "create", *words)
    assert code == 0
    assert out.endswith(f"next: pytest --overfit-config {path}\n")
    assert not (folder / "single_pair_test.yaml").exists()
    for split in _splits(_common(path)):
        assert (path.parent / split["ROOT"]).resolve() == folder
        assert (path.parent / split["split_file"]).is_file()
        assert (path.parent / split["segmentation_root"]).is_dir()


def test_config_of_a_pair_without_masks(source: RenderedSource, tmp_path: Path) -> None:
    """Where a mask is missing the config keeps the sky, so that it runs as it is."""
    words = ["--source-root", str(source.source_root), "--source-seg-root", str(tmp_path / "none")]
    assert main(["pair", "create", *words, "--output-root", str(tmp_path / "out"), "--create-config"]) == 0
    assert [split["remove_sky"] for split in _splits(_common(tmp_path / "out" / "single_pair_test.yaml"))] == [
        False
    ] * 2


def test_own_config_is_kept(source: RenderedSource, pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config that the user has changed stays, and the command says so; --overwrite replaces it."""
    path = pair_folder / "single_pair_test.yaml"
    original = path.read_text()
    path.write_text("mine: 1\n")
    words = ["pair", "create", "--source-root", source.source_root, "--output-root", pair_folder, "--create-config"]
    code, out, _ = _run(capsys, *words)
    assert code == 0
    assert out.endswith(f"{path} was there before, with other content: kept (--overwrite replaces it)\n")
    assert path.read_text() == "mine: 1\n"
    assert _run(capsys, *words, "--overwrite")[0] == 0
    assert path.read_text() == original


def test_creating_needs_no_torch(source: RenderedSource, tmp_path: Path) -> None:
    """`pair create` imports neither torch nor pytest."""
    words = ["pair", "create", "--source-root", str(source.source_root), "--output-root", str(tmp_path / "out")]
    code = (
        "import sys; from pytest_overfit.cli import main\n"
        f"assert main({words!r}) == 0\n"
        "print(sorted({'torch', 'pytest', 'cv2', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


def test_show_draws_a_sheet_into_the_folder(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without options it lies beside the pair, which is still the pair that it was; a second time it is replaced."""
    code, out, err = _run(capsys, "pair", "show", pair_folder)
    sheet = pair_folder / "contact_sheet.png"
    assert (code, err) == (0, "")
    width, height = _size(sheet)
    assert out.startswith(f"{sheet}: {width} x {height} pixels\nvalid ")
    sheet.write_bytes(b"old")
    assert _run(capsys, "pair", "show", pair_folder)[0] == 0
    assert _size(sheet) == (width, height)
    assert not [name for name in _files(pair_folder) if name.endswith(".part")]
    assert _run(capsys, "pair", "check", pair_folder, "--img-size", "112")[0] == 0


def test_show_works_on_real_frames_and_on_their_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut, shown as files, shown as the loader hands them out."""
    root = shared_data("real_rgbd", "cropped")
    assert main(["pair", "create", "--source-root", str(root), "--output-root", str(tmp_path / "pair")]) == 0
    for words in ([], ["--img-size", "140", "--aspect-ratio", "0.75", "--no-remove-sky"]):
        output = tmp_path / f"sheet{len(words)}.PNG"
        code, out, _ = _run(capsys, "pair", "show", tmp_path / "pair", "--output", output, *words)
        assert code == 0
        assert "geometry contradicts in " in out
        assert _size(output)[0] == 2284


def test_show_names_the_problems_of_a_pair(pair_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sheet is drawn all the same: it is there to look at what is wrong."""
    (pair_folder / "seg" / "0002" / "aerial.jpeg.png").unlink()
    code, out, _ = _run(capsys, "pair", "show", pair_folder)
    assert code == 0
    assert "problem: remove_sky is on, but aerial.jpeg has no mask" in out
    assert (pair_folder / "contact_sheet.png").is_file()


def test_show_says_what_cannot_be_read_or_written(
    pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clean message each: no pair, no folder for the output, a folder in its place, a batch that is none."""
    code, _, err = _run(capsys, "pair", "show", tmp_path / "none")
    assert (code, err) == (1, f"pytest-overfit: {tmp_path}/none/train.npz: no such file\n")
    output = tmp_path / "missing" / "sheet.png"
    code, _, err = _run(capsys, "pair", "show", pair_folder, "--output", output)
    assert code == 1
    assert err.startswith(f"pytest-overfit: {output}: cannot be written: No such file or directory\n")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    code, _, err = _run(capsys, "pair", "show", pair_folder, "--output", folder)
    assert code == 1
    assert "cannot be written: Is a directory" in err
    assert not list(tmp_path.glob(".*"))
    code, _, err = _run(capsys, "pair", "show", pair_folder, "--img-size", 100)
    assert (code, err.splitlines()[0]) == (1, "pytest-overfit: img_size 100")
