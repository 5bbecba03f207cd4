"""``pytest-overfit pair create``: what it prints and makes, and the config that it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.cli import main
from pytest_overfit.two_view.pair.index import read_index
from pytest_overfit.two_view.pair.synthetic import RenderedSource
from tests.cli.support import files_in, run
from tests.shared_data import shared_data


def test_create_prints_the_pair_and_the_next_command(
    source: RenderedSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Creating a pair with a config names the pair, its images and the command that comes next."""
    folder = tmp_path / "out"
    words = ["--source-root", source.source_root, "--output-root", folder, "--create-config"]
    code, out, err = run(capsys, "pair", "create", *words)
    assert (code, err) == (0, "")
    assert out == (
        f"aerial_megadepth_0002_0 in {folder}\n"
        "  0002/aerial.jpeg\n"
        "  0002/ground.jpeg\n"
        f"next: pytest --overfit-config {folder}/single_pair_test.yaml\n"
    )
    assert files_in(folder) == {
        "train.npz",
        "val.npz",
        "single_pair_test.yaml",
        *(f"0002/{tag}.jpeg.{kind}" for tag in ("aerial", "ground") for kind in ("jpg", "exr", "npz")),
        *(f"seg/0002/{tag}.jpeg.png" for tag in ("aerial", "ground")),
    }


def test_underscores_and_explicit_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The guide's spelling with underscores is accepted, with a blank or `=` before the value."""
    root, seg = shared_data("real_rgbd", "cropped"), shared_data("real_rgbd", "cropped_seg")
    code, out, _ = run(
        capsys, "pair", "create", f"--source_root={root}", "--source_seg_root", seg,
        "--source_npz", root / "val.npz", "--output_root", tmp_path / "my_out_put", "--pair_index=1",
    )  # fmt: skip
    assert code == 0
    assert out.startswith(f"aerial_megadepth_0002_0 in {tmp_path}/my_out_put\n  0002/frame-000150.jpeg\n")
    assert tuple(read_index(tmp_path / "my_out_put" / "train.npz").images) == ("frame-000150.jpeg", "frame-000200.jpeg")


def test_defaults(source: RenderedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options the source is aerialmegadepth/cropped and the output single_pair_data, both in the cwd."""
    (tmp_path / "aerialmegadepth").symlink_to(source.source_root.parent)
    monkeypatch.chdir(tmp_path)
    assert main(["pair", "create"]) == 0
    assert (tmp_path / "single_pair_data" / "seg" / "0002" / "aerial.jpeg.png").is_file()


def test_render(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rendered pair needs no source, and its seed decides the scene."""
    assert run(capsys, "pair", "create", "--render", "--seed", "4", "--output-root", tmp_path / "a")[0] == 0
    assert "0004/ground.jpeg.exr" in files_in(tmp_path / "a")
    assert run(capsys, "pair", "check", tmp_path / "a", "--img-size", "112")[0] == 0


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
    from pytest_overfit.trainer.loading import load_config

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
    code, out, _ = run(capsys, "pair", "create", *words)
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
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert out.endswith(f"{path} was there before, with other content: kept (--overwrite replaces it)\n")
    assert path.read_text() == "mine: 1\n"
    assert run(capsys, *words, "--overwrite")[0] == 0
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
