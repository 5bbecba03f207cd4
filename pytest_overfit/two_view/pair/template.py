"""The config that `pytest-overfit pair create --create-config` writes next to a pair."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
from importlib import resources
from pathlib import Path

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.create import CONFIG_NAME, SEGMENTATION, SPLITS
from pytest_overfit.two_view.pair.pair_files import PairFiles
from pytest_overfit.untrusted.files import read_regular

MOST_BYTES = 2**20
CLASS = "data.datasets.aerial_megadepth.AerialMegaDepthDataset"  # where the repository does not say otherwise
DEFAULTS = "default_dataset.yaml"  # what a VGGT-style trainer keeps beside its configs


def config_text(pair: PairFiles, folder: Path, *, style: str = "own") -> str:
    """The text of a config that lies in `folder` and trains on `pair`; a pair without all masks keeps its sky.

    `style` is `own` (this plugin's data path, model and loss) or `vggt`: the form of a VGGT-style trainer, for its
    classes and its launcher too. Its paths are absolute, and it starts from `default_dataset.yaml` where `folder` has
    one.

    Example:
        >>> "ROOT: ." in config_text(create_pair(..., "single_pair_data"), Path("single_pair_data"))
        True
    """
    name = CONFIG_NAME if style == "own" else CONFIG_NAME.replace(".", f"_{style}.")
    template = resources.files("pytest_overfit.two_view.pair").joinpath(f"{name}.in").read_text(encoding="utf-8")
    root = Path(os.path.relpath(pair.root.absolute(), folder.absolute())).as_posix()
    if style == "vggt":  # a trainer opens relative paths from wherever it was started
        root = pair.root.absolute().as_posix()
        listed = f"defaults:\n  - {DEFAULTS}\n\n" if (folder / DEFAULTS).is_file() else ""
        template = template.replace("@DEFAULTS@", listed).replace(CLASS, _data_class(folder))
    below = "." if root == "." else root.rstrip("/")
    values = {
        "@ROOT@": root,
        "@TRAIN@": f"{below}/{SPLITS[0]}",
        "@VAL@": f"{below}/{SPLITS[1]}",
        "@SEG@": f"{below}/{SEGMENTATION}",
    }
    for mark, path in values.items():
        template = template.replace(mark, path if re.fullmatch(r"[./\w][./\w-]*", path) else json.dumps(path))
    return template.replace("@SKY@", "true" if all(view.mask for view in pair.views) else "false")


def _data_class(folder: Path) -> str:
    """The class of the trainer's repository around ``folder`` that reads such pairs: by what it is built with."""
    near = [folder.absolute(), *folder.absolute().parents[:3]]
    homes = (home / "data" / "datasets" for at in near for home in (at, at / "training"))
    for file in (file for home in homes for file in sorted(home.glob("*.py"))):
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for each in (node for node in tree.body if isinstance(node, ast.ClassDef)):
                names = {a.arg for node in ast.walk(each) if isinstance(node, ast.arguments) for a in node.args}
                if {"ROOT", "split_file", "segmentation_root"} <= names:
                    return f"data.datasets.{file.stem}.{each.name}"
    return CLASS


def write_config(pair: PairFiles, path: Path, *, overwrite: bool = False, style: str = "own") -> bool:
    """Write the config to `path`, in one rename; False where a file of other content lies there and stays.

    Raises:
        PairError: the file cannot be written.
    """
    text = config_text(pair, path.parent, style=style)
    try:
        if path.exists() and not overwrite:
            return read_regular(path, most=MOST_BYTES, error=PairError) == text.encode("utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise PairError(f"cannot be written ({error})", where=path) from error
    return True
