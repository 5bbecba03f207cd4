"""`pytest-overfit init`: a first test of what a repository has, read from its sources."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_overfit.cli import main
from pytest_overfit.commands.init_command import planned
from pytest_overfit.trainer.compose import compose_tree
from tests.support.warm import warm_python

NETS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, width)
    def forward(self, x):
        return x + self.mix(x).relu()

class Net(nn.Module):
    def __init__(self, width, classes=3):
        super().__init__()
        self.first, self.block, self.last = nn.Linear(4, width), Block(width), nn.Linear(width, classes)
    def forward(self, x):
        return self.last(self.block(self.first(x)))

"""
DATA = """
import torch
from torch.utils.data import Dataset

class Points(Dataset):
    def __init__(self, split):
        self.x, self.y = torch.randn(20, 4), torch.arange(20) % 3
    def __len__(self):
        return 20
    def __getitem__(self, index):
        return self.x[index], self.y[index]
"""
TRAIN = """
import torch
from torch import nn
from shop.nets import Net
from shop.data import Points

def main():
    model, data, criterion = Net(width=64), Points("train"), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
raise RuntimeError("imported")
"""
LIGHTNING = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset

class Classifier(LightningModule):
    def __init__(self, width=64):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, 3))
    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.body(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)

class Data(LightningDataModule):
    def setup(self, stage):
        self.samples = TensorDataset(torch.randn(24, 8), torch.arange(24) % 3)
    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=8)
"""
UNKNOWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, 2)
"""
CALLER = "import sys\nfrom net import Net\nmodel = Net(int(sys.argv[1]))\n"
HYDRA = """
model: {_target_: net.Net}
loss: {_target_: loss.Loss}
data: {train: {_target_: data.Loader}}
optim: {optimizer: {_target_: torch.optim.AdamW}}
"""


def repository(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def written(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What ``init`` says, and the command it advises."""
    monkeypatch.chdir(root)
    assert main(["init"]) == 0
    said = capsys.readouterr().out
    return said, said.rpartition("next: ")[2].strip()


def run(command: str, root: Path) -> subprocess.CompletedProcess[str]:
    words = [*warm_python(), "-m", *shlex.split(command)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(words, cwd=root, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("below", "command"), [("", "pytest test_overfit.py"), ("src/", 'pytest -o "pythonpath=src" test_overfit.py')]
)
def test_a_plain_repository_passes_as_it_is(
    below: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model, data, loss and optimizer as the training script builds them; a block of a model is none."""
    files = {"shop/__init__.py": "", "shop/nets.py": NETS, "shop/data.py": DATA}
    root = repository(tmp_path, {**{below + name: text for name, text in files.items()}, "train.py": TRAIN})
    said, advised = written(root, capsys, monkeypatch)
    assert advised == command
    test = (root / "test_overfit.py").read_text()
    assert "Net(width=64)" in test
    assert "Points('train')" in test
    assert "nn.CrossEntropyLoss()" in test
    assert "torch.optim.SGD(parameters, lr=0.1, momentum=0.9)" in test
    assert "Block" not in said + test
    assert "as in train.py:" in said
    done = run(advised, root)
    assert done.returncode == 0, done.stdout


def test_lightning(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The module and its data are handed over as they are."""
    root = repository(tmp_path, {"model.py": LIGHTNING})
    said, advised = written(root, capsys, monkeypatch)
    assert "overfit(Classifier(), Data())" in (root / "test_overfit.py").read_text()
    done = run(advised, root)
    assert done.returncode == 0, said + done.stdout


def test_what_cannot_be_read_is_to_be_filled_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test is red until then, and says what is wanted and how the repository does it."""
    root = repository(tmp_path, {"net.py": UNKNOWN, "main.py": CALLER})
    said, advised = written(root, capsys, monkeypatch)
    for name in ("net_model", "batch", "loss"):
        assert f"fill in: {name}() of test_overfit.py" in said
    done = run(advised, root)
    assert done.returncode == 1
    assert "return Net(width) of a small size; main.py:3 has Net(int(sys.argv[1]))" in done.stdout


def test_a_config_of_a_trainer_is_extended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside it, by its name; one of ours is none of theirs."""
    root = repository(tmp_path, {"training/config/base.yaml": HYDRA, "net.py": UNKNOWN})
    _, advised = written(root, capsys, monkeypatch)
    assert advised == "pytest --overfit-config training/config/overfit_base.yaml"
    text = (root / "training/config/overfit_base.yaml").read_text()
    assert "defaults:\n  - base\n  - _self_\n" in text


DRAWS = """
  train: &split
    _target_: data.dynamic_dataloader.DynamicTorchDataset
    common_config: {fix_img_num: -1, img_nums: [2, 24], rescale_aug: true, augs: {gray_scale: true}, get_nearby: true}
  val: {_target_: data.Own, common_config: {fix_img_num: 2}}
max_epochs: 2
optim: {optimizer: {_target_: torch.optim.AdamW}, amp: {enabled: true}}
"""


def test_what_a_trainer_draws_at_random_is_held_in_what_extends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps enough and full precision: what the first run would ask for is in the file."""
    text = f"model: {{_target_: net.Net}}\nloss: {{_target_: net.Loss}}\ndata:{DRAWS}"
    root = repository(tmp_path, {"training/config/base.yaml": text, "net.py": UNKNOWN})
    written(root, capsys, monkeypatch)
    found = compose_tree(root / "training/config/overfit_base.yaml", ()).values
    common = found["data"]["train"]["common_config"]
    assert [common[key] for key in ("fix_img_num", "rescale_aug", "training", "get_nearby")] == [2, False, False, False]
    assert found["data"]["val"]["common_config"] == {"fix_img_num": 2}
    assert (found["max_epochs"], found["optim"]["amp"]["enabled"]) == (40, False)
    assert found["optim"]["optimizer"] == {"_target_": "torch.optim.AdamW"}


def test_an_empty_folder_gets_a_small_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes, and says that it is no model of theirs."""
    said, advised = written(tmp_path, capsys, monkeypatch)
    assert "no model below" in said
    assert run(advised, tmp_path).returncode == 0


def test_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second time, and where the folder is none or cannot be written to."""
    written(tmp_path, capsys, monkeypatch)
    (tmp_path / "test_overfit.py").write_text("mine")
    assert main(["init"]) == 1
    assert (tmp_path / "test_overfit.py").read_text() == "mine"
    assert "there is such a file already" in capsys.readouterr().err
    assert main(["init", "nowhere"]) == 1
    assert "there is no folder nowhere" in capsys.readouterr().err
    assert main(["init", "--output", "test_overfit.py/deeper/test_other.py"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_folder_with_an_ini_file_and_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test goes beside the others where the ini file makes its imports work."""
    ini = '[tool.pytest.ini_options]\npythonpath = ["src"]\n'
    root = repository(tmp_path, {"src/model.py": LIGHTNING, "tests/test_x.py": "", "pyproject.toml": ini})
    _, advised = written(root, capsys, monkeypatch)
    assert advised == "pytest tests/test_overfit.py"
    assert run(advised, root).returncode == 0


def test_a_lightning_module_hides_no_other_model(tmp_path: Path) -> None:
    """A repository of several kinds gets a test for each; what is a part of one gets none."""
    head = "import pytorch_lightning as pl\nfrom torch import nn\n\n\n"
    init = "    def __init__(self):\n        super().__init__()\n        self.part = Part()\n"
    lit = f"class Lit(pl.LightningModule):\n{init}"
    (tmp_path / "models.py").write_text(
        f"{head}class Part(nn.Module):\n    pass\n\n\nclass Whole(nn.Module):\n    pass\n\n\n{lit}", encoding="utf-8"
    )
    text = planned(tmp_path).text
    assert "def test_lit_memorises_one_batch" in text
    assert "def test_whole_memorises_one_batch" in text
    assert "test_part_" not in text
