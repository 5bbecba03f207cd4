"""`pytest-overfit init` in a repository with a train step, a loss, an optimizer and a loader of its own."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from pytest_overfit.cli import main
from pytest_overfit.commands.init_command import planned
from tests.commands.test_init_command import repository, run, written

MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))
    def forward(self, x):
        return self.body(x)

def build_model(width=64):
    model = Net(width)
    return model
"""
DATA = """
import torch
from torch.utils.data import DataLoader, Dataset

class Points(Dataset):
    def __init__(self, split="train"):
        self.x, self.y = torch.randn(20, 4), torch.arange(20) % 3
    def __len__(self):
        return 20
    def __getitem__(self, index):
        return self.x[index], self.y[index]

def get_loaders(batch_size=8):
    return DataLoader(Points("train"), batch_size), DataLoader(Points("val"), batch_size)
"""
ENGINE = """
import torch
from torch import nn
from shop.data import get_loaders
from shop.model import build_model

def make_optimizer(model, lr):
    return torch.optim.Adam(model.parameters(), lr=lr)

def train_step(model, optimizer, criterion, x, y, device="cpu"):
    optimizer.zero_grad()
    loss = criterion(model(x.to(device)), y.to(device))
    loss.backward()
    optimizer.step()
    return loss.item()

def train_epoch(model, loader, optimizer, criterion):
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    return 0.0

def main():
    model = build_model()
    optimizer = make_optimizer(model, lr=0.01)
    train, _ = get_loaders()
    for x, y in train:
        train_step(model, optimizer, nn.CrossEntropyLoss(), x, y)

if __name__ == "__main__":
    main()
"""
SHOP = {"shop/__init__.py": "", "shop/model.py": MODEL, "shop/data.py": DATA, "shop/engine.py": ENGINE}


def test_the_functions_of_the_repository_are_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its train step with its arguments in its order, its optimizer, its loader, what builds its model."""
    root = repository(tmp_path, SHOP)
    said, advised = written(root, capsys, monkeypatch)
    test = (root / "test_overfit.py").read_text()
    assert "model = build_model()\n" in test
    assert "return next(iter(get_loaders(batch_size=2)[0]))" in test
    assert "return train_step(model, optimizer, nn.CrossEntropyLoss(), batch[0], batch[1])" in test
    assert "overfit(model, batch(), step=step, optimizer=make_optimizer(model, lr=0.01))" in test
    assert "train_step (shop/engine.py:10)" in said
    assert "NotImplementedError" not in test
    done = run(advised, root)
    assert done.returncode == 0, done.stdout


def test_a_trainer_of_the_model_has_the_step(tmp_path: Path) -> None:
    """A class that is built of the model and takes a batch, as the repository has it."""
    trainer = """
        import torch
        from torch.nn import functional as F

        class Trainer:
            def __init__(self, model, lr=0.01):
                self.model, self.optimizer = model, torch.optim.Adam(model.parameters(), lr=lr)

            def train_step(self, batch):
                loss = F.cross_entropy(self.model(batch[0]), batch[1])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                return loss
    """
    root = repository(tmp_path, {**SHOP, "shop/engine.py": dedent(trainer)})
    test = planned(root).text
    assert "model = build_model()\n    overfit(model, batch(), step=Trainer(model).train_step)" in test
    (root / "test_overfit.py").write_text(test)
    done = run("pytest test_overfit.py", root)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("function", "used"),
    [
        ("def compute_loss(model, batch):\n    return F.cross_entropy(model(batch[0]), batch[1])\n", ", compute_loss"),
        ("def my_loss(logits, y):\n    return F.cross_entropy(logits, y)\n", ", my_loss"),
        ("def terms(model, batch):\n    return {'loss': F.cross_entropy(model(batch[0]), batch[1])}\n", ", terms"),
        ("def step_loss(x, y, net):\n    return F.cross_entropy(net(x), y)\n", ", loss"),
    ],
)
def test_a_loss_that_is_a_function(function: str, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where `overfit` takes it so, else called with what it takes."""
    losses = f"from torch.nn import functional as F\nfrom shop.model import Net\n\n{function}"
    root = repository(tmp_path, {**SHOP, "shop/engine.py": "", "shop/losses.py": losses})
    test = planned(root).text
    assert f"overfit(build_model(), batch(){used})" in test
    (root / "test_overfit.py").write_text(test)
    done = run("pytest test_overfit.py", root)
    assert done.returncode == 0, done.stdout


def test_a_model_that_makes_its_own_loss_gets_none_of_torch(tmp_path: Path) -> None:
    """What its forward pass calls is no criterion for its outputs."""
    own = MODEL.replace("return self.body(x)", "return x, nn.functional.cross_entropy(self.body(x), y)")
    assert "F.cross_entropy" not in planned(repository(tmp_path, {"model.py": own})).text


def test_each_model_gets_the_data_of_its_own_package(tmp_path: Path) -> None:
    """Not the first data set of the repository, and none where nothing leads to one."""
    net = "from torch import nn\nclass {0}(nn.Module):\n    def forward(self, x):\n        return x\n"
    data = "from torch.utils.data import Dataset\nclass {0}(Dataset):\n    pass\n"
    files = {"audio/data.py": data.format("Clips"), "text/data.py": data.format("Lines")}
    files |= {"text/model.py": net.format("Tagger"), "audio/model.py": net.format("Listener")}
    files |= {"alone/model.py": net.format("Lonely")}
    files |= {f"{name}/__init__.py": "" for name in ("audio", "text", "alone")}
    test = planned(repository(tmp_path, files)).text
    batches = {part.partition("(")[0]: part for part in test.split("\n\n\ndef ")}
    assert "DataLoader(Lines(), batch_size=2)" in batches["tagger_batch"]
    assert "DataLoader(Clips(), batch_size=2)" in batches["listener_batch"]
    assert "NotImplementedError" in batches["lonely_batch"]


def test_a_data_set_that_a_script_gives_to_a_model_is_its_own(tmp_path: Path) -> None:
    """What one function builds together belongs together, wherever it is defined."""
    data = "from torch.utils.data import Dataset\nclass A(Dataset):\n    pass\nclass B(Dataset):\n    pass\n"
    nets = "from torch import nn\nclass First(nn.Module):\n    pass\nclass Second(nn.Module):\n    pass\n"
    script = "def one():\n    fit(First(), B())\n\ndef two():\n    fit(Second(), A())\n"
    test = planned(repository(tmp_path, {"data.py": data, "nets.py": nets, "train.py": script})).text
    batches = {part.partition("(")[0]: part for part in test.split("\n\n\ndef ")}
    assert "DataLoader(B()" in batches["first_batch"]
    assert "DataLoader(A()" in batches["second_batch"]


def test_what_collates_a_batch_comes_along(tmp_path: Path) -> None:
    """A loader of the repository has a function that makes batches of samples."""
    data = DATA.partition("def get_loaders")[0] + "def collate(samples):\n    return {'x': samples}\n"
    script = "loader = DataLoader(Points('train'), batch_size=64, collate_fn=collate)\nmodel = Net(8)\n"
    test = planned(repository(tmp_path, {"model.py": MODEL, "data.py": data, "train.py": script})).text
    assert "DataLoader(Points('train'), batch_size=2, collate_fn=collate)" in test
    assert "from data import Points, collate" in test or "from data import collate" in test


def test_a_script_that_trains_when_it_is_imported_is_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class of it cannot be imported without; a function of it is not used."""
    model = MODEL.replace("width)", "width=8)", 1)
    script = f"{model}\nargs = parser.parse_args()\nfor epoch in range(3):\n    print(epoch)\n"
    step = "def train_step(model, batch, optimizer):\n    loss.backward(); optimizer.step(); return loss\ntrain()\n"
    root = repository(tmp_path, {"train.py": script, "more.py": step})
    said, _ = written(root, capsys, monkeypatch)
    assert 'train.py runs when it is imported: put that below `if __name__ == "__main__":`' in said
    assert "import train_step" not in (root / "test_overfit.py").read_text()


@pytest.mark.parametrize("output", ["tets/test_mine.py", "a/b/c.py"])
def test_a_mistyped_folder_is_not_made(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error that says which, and the folder that is like it."""
    monkeypatch.chdir(repository(tmp_path, {**SHOP, "tests/test_x.py": ""}))
    assert main(["init", "--output", output]) == 1
    said = capsys.readouterr()
    folder = output.rpartition("/")[0]
    assert f"{output}: cannot be written: there is no folder {folder}" in said.err
    assert ("--output tests/test_mine.py" in said.err) == (folder == "tets")
    assert said.out == ""
    assert not (tmp_path / folder.partition("/")[0]).exists()


def of_one_folder(model: str, width: int, rate: float) -> str:
    return dedent(f"""
        import torch
        from torch import nn

        class {model}(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear({width}, 1)
            def forward(self, x):
                return self.layer(x)

        def train_step(model, batch, optimizer):
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        def make_loader(batch_size=2):
            return torch.utils.data.DataLoader(torch.randn(8, {width}), batch_size=batch_size)

        def main():
            model = {model}()
            optimizer = torch.optim.Adam(model.parameters(), lr={rate})
            for batch in make_loader():
                train_step(model, batch, optimizer)
        """)


@pytest.mark.parametrize("names", [("First", "Second"), ("Net", "Net")])
def test_two_packages_with_the_same_names_keep_their_own(names: tuple[str, str], tmp_path: Path) -> None:
    files = {"a/__init__.py": "", "b/__init__.py": ""}
    files |= {"a/train.py": of_one_folder(names[0], 4, 0.01), "b/train.py": of_one_folder(names[1], 7, 0.02)}
    plan = planned(repository(tmp_path, files))
    (tmp_path / plan.path).write_text(plan.text)
    done = run(plan.command, tmp_path)
    assert "2 passed" in done.stdout, plan.text + done.stdout
    assert "make_loader as make_loader_a" in plan.text
    assert "step=train_step_b" in plan.text
    assert "lr=0.01" in plan.text
    assert "lr=0.02" in plan.text


def test_a_function_that_two_packages_have_is_the_imported_one(tmp_path: Path) -> None:
    files = {"a/__init__.py": "", "b/__init__.py": "", "c/__init__.py": ""}
    files |= {"a/train.py": of_one_folder("First", 4, 0.01), "b/train.py": of_one_folder("Second", 7, 0.02)}
    apart, _, rest = of_one_folder("Third", 7, 0.02).partition("def train_step")
    main = rest[rest.index("def main") :]
    files["c/run.py"] = f"{apart}from b.train import make_loader, train_step\n\n{main}"
    text = planned(repository(tmp_path, files)).text
    third = text[text.index("def third_batch") :]
    assert "make_loader_b" in third.splitlines()[1]
    assert "step=train_step_b" in text[text.index("def test_third") :]


def test_of_two_folders_with_a_module_of_one_name_the_second_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"a/train.py": of_one_folder("First", 4, 0.01), "b/train.py": of_one_folder("Second", 7, 0.02)}
    repository(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    told = capsys.readouterr().out
    assert "left out: Second (b/train.py): a/train.py and b/train.py are both imported as train" in told, told
    assert "by itself: pytest-overfit init b" in told
    assert "1 passed" in run(told.partition("next: ")[2].strip(), tmp_path).stdout
    assert main(["init", "b"]) == 0
    assert "class" not in (tmp_path / "b/test_overfit.py").read_text()
    assert "1 passed" in run("pytest test_overfit.py", tmp_path / "b").stdout
