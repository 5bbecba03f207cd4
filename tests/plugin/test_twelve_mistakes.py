"""Mistakes of a first day, each by its words: the first line names it, and what is advised, pasted, mends it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.plugin.conftest import TinyConfig
from tests.plugin.test_faults import EXR, IN_PLACE, PLACES, SPLIT
from tests.plugin.test_faults import rendered as rendered
from tests.support.sessions import HANGS, keep_modules, own_plugins_only

HEAD = "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n\n"
BATCH = """\
def batch():
    torch.manual_seed(1)
    return torch.randn(6, 4), torch.arange(6) % 3


"""
NET = f"""\
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))


{BATCH}"""
MODEL = f"""\
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 64)
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


{BATCH}"""
LOSS = """\
def loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y)


"""
STEP = """\
def step(model, batch, optimizer):
    x, y = batch
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


"""
TEST = "def test_it(overfit):\n    "
CRITERION = f"{TEST}overfit(net(), batch(), nn.CrossEntropyLoss())\n"
WORDS = """\
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 32), nn.Tanh(), nn.Linear(32, 7))


def batch():
    return torch.arange(20).reshape(4, 5) % 7, torch.arange(20).reshape(4, 5) * 3 % 7


def test_it(overfit):
    overfit(
        net(),
        batch(),
        lambda output, target: nn.CrossEntropyLoss()(output.movedim(-1, 1), target),
    )
"""
LINE = re.compile(r"(?:change|next): (?P<advice>\S.*)")
MOST = 120  # characters


@dataclass(frozen=True)
class Mistake:
    """What is exchanged in a healthy file, and the words of the first line that is told of it."""

    healthy: str
    right: str
    wrong: str
    told: str


def own_loss(text: str, right: str, wrong: str, told: str) -> Mistake:
    return Mistake(f"{NET}{text}{TEST}overfit(net(), batch(), loss)\n", right, wrong, told)


def own_step(right: str, wrong: str, told: str) -> Mistake:
    return Mistake(f"{NET}{STEP}{TEST}overfit(net(), batch(), step=step)\n", right, wrong, told)


ADAM = CRITERION.replace("Loss())", "Loss(), optimizer=lambda p: torch.optim.Adam(p, lr=0.01))")
OF_MODEL = MODEL + CRITERION.replace("net()", "Model()")
REGRESSION = LOSS.replace("cross_entropy(model(x), y)", "mse_loss(model(x)[:, :1], y[:, None].float())")
MISTAKES = {
    "wrong lr": Mistake(NET + ADAM, "lr=0.01", "lr=1e-6", "learning rate of 0.001 instead of 1e-06"),
    "wrong lr of ours": Mistake(NET + CRITERION, "Loss())", "Loss(), lr=1e-6)", "learning rate of 0.001 instead of"),
    "frozen head": Mistake(
        OF_MODEL,
        "        self.head = nn.Linear(64, 3)\n",
        "        self.head = nn.Linear(64, 3)\n        self.head.requires_grad_(False)\n",
        "2 of 4 parameter tensors are frozen",
    ),
    "double softmax": Mistake(
        OF_MODEL,
        "self.head(torch.tanh(self.body(x)))",
        "F.softmax(self.head(torch.tanh(self.body(x))), dim=-1)",
        "cross_entropy gets the output of a softmax",
    ),
    "wrong shape, broadcast": own_loss(REGRESSION, "y[:, None].float()", "y.float()", "(6, 1) meets (6,) in mse_loss"),
    "wrong shape, refused": Mistake(OF_MODEL, "nn.Linear(64, 3)", "nn.Linear(32, 3)", "input (6, 64): mat1 and mat2"),
    "forgotten zero_grad": own_step("    optimizer.zero_grad()\n", "", "still held the gradient of the step before"),
    "forgotten backward": own_step("    loss.backward()\n", "", "no backward pass"),
    "class ids into MSE": Mistake(
        NET + CRITERION, "CrossEntropyLoss", "MSELoss", "mse_loss of input (6, 3), target (6,) int64"
    ),
    "classes on the last axis": Mistake(
        WORDS,
        "lambda output, target: nn.CrossEntropyLoss()(output.movedim(-1, 1), target)",
        "nn.CrossEntropyLoss()",
        "cross_entropy of input (4, 5, 7), target (4, 5) int64",
    ),
    "classes on the last axis, in a function": own_loss(
        LOSS.replace("(model(x), y)", "(model(x)[:, None].movedim(-1, 1), y[:, None])"),
        "(model(x)[:, None].movedim(-1, 1)",
        "(model(x)[:, None]",
        "cross_entropy of input (6, 1, 3), target (6, 1) int64",
    ),
    ".item()": own_loss(LOSS, "(model(x), y)", "(model(x), y).item()", ".item() cuts it from the model"),
    ".item() in a step": own_step(
        "F.cross_entropy(model(x), y)",
        "torch.tensor(F.cross_entropy(model(x), y).item(), requires_grad=True)",
        ".item() cuts it from the model",
    ),
    "swapped arguments of a loss": own_loss(
        LOSS, "(model(x), y)", "(y, model(x))", "cross_entropy of input (6,) int64, target (6, 3)"
    ),
    "a misspelt keyword": Mistake(
        NET + CRITERION.replace("Loss())", "Loss(), max_steps=900)"), "max_steps=", "max_step=", "argument max_step"
    ),
    "a keyword of another name": Mistake(
        NET + CRITERION.replace("Loss())", "Loss(), lr=0.01)"), "lr=", "learning_rate=", "argument learning_rate"
    ),
    "swapped loss and batch": own_loss(
        LOSS, "net(), batch(), loss", "net(), loss, batch()", "a function of (model, batch)"
    ),
    "wrong shape, a product": Mistake(
        OF_MODEL, "nn.Linear(64, 3)", "nn.Linear(8 * 4, 3)", "input (6, 64): mat1 and mat2"
    ),
    "wrong shape, broadcast over the middle": own_loss(
        LOSS.replace("cross_entropy(model(x), y)", "mse_loss(model(x)[:, None], F.one_hot(y, 3)[:, None].float())"),
        "F.one_hot(y, 3)[:, None].float()",
        "F.one_hot(y, 3).float()",
        "(6, 1, 3) meets (6, 3) in mse_loss",
    ),
    "class ids of a sequence into MSE": Mistake(
        WORDS,
        "lambda output, target: nn.CrossEntropyLoss()(output.movedim(-1, 1), target)",
        "nn.MSELoss()",
        "mse_loss of input (4, 5, 7), target (4, 5) int64",
    ),
    "swapped arguments of a call": Mistake(NET + CRITERION, "net(), batch()", "batch(), net()", "model: a tuple where"),
}


@pytest.fixture(autouse=True)
def sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions inside the test keep torch, and run in order."""
    keep_modules(monkeypatch)
    own_plugins_only(request, monkeypatch)


def shown(result: pytest.RunResult) -> tuple[str, str]:
    """The first line of what failed as pytest's short summary has it, or of an error of use; and what is advised."""
    text = "\n".join([*result.outlines, *result.errlines])
    first = re.search(r"^(?:FAILED \S+ - |ERROR: )(.*)", text, re.MULTILINE)
    found = list(LINE.finditer(text))
    advice = next((each for each in found if "change: " in each[0]), found[0] if found else None)
    assert first is not None, text
    assert advice is not None, text
    return first[1], advice["advice"]


def paste(advice: str) -> None:
    """The line of a file in its place."""
    match = re.fullmatch(r"(\S+):(\d+): (.*)", advice)
    assert match is not None, advice
    path, number = Path(match[1]), int(match[2])
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = " " * (len(lines[number - 1]) - len(lines[number - 1].lstrip())) + match[3]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_test_is_named_and_mended(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The first line of the short summary, and the line that is advised."""
    mistake = MISTAKES[name]
    assert mistake.healthy.count(mistake.right) == 1
    path = pytester.path / "test_it.py"
    path.write_text(HEAD + mistake.healthy.replace(mistake.right, mistake.wrong), encoding="utf-8")
    monkeypatch.setenv("CI", "true")  # where the summary is as wide as it needs
    result = pytester.runpytest_inprocess("-q", "-W", "ignore")
    first, advice = shown(result)
    assert mistake.told in first
    assert len(first) <= MOST
    told = [line.removeprefix("E").split("change: ")[-1] for line in result.outlines if "change: " in line]
    assert len({line for line in told if line.startswith("test_it.py")}) == 1, told  # no two lines contradict
    paste(advice)
    (pytester.path / "conftest.py").unlink(missing_ok=True)
    shutil.rmtree(pytester.path / "__pycache__", ignore_errors=True)
    assert pytester.runpytest_inprocess("-q", "-W", "ignore").ret == pytest.ExitCode.OK


@pytest.fixture
def pair_config(pytester: pytest.Pytester, tiny: TinyConfig, rendered: Path) -> Callable[..., Path]:
    """Writes the tiny config over a copy of a pair, with some text exchanged."""

    def write(*replace: tuple[str, str]) -> Path:
        shutil.copytree(rendered, pytester.path / "pair")
        places = (SPLIT, f"{SPLIT}\n    dataset: {{dataset_configs: [{{{PLACES}}}]}}")
        return tiny(replace=(places, IN_PLACE, *replace))

    return write


CONFIGS: Mapping[str, tuple[tuple[str, str] | str, str]] = {
    "path typo": (("ROOT: pair,", "ROOT: pare,"), "no such folder: "),
    "key typo": (("optimizer: {", "optimzer: {"), "optim.optimzer: found an unknown key (did you mean optimizer?)"),
    "missing EXR": (EXR, "pair: no such file: ground.jpeg.exr"),
    "path typo, of the split": (("pair/train.npz", "pair/trian.npz"), "no such file: pair/trian.npz"),
    "key typo, of a section": (("common_config", "common_confg"), "did you mean common_config?"),
    "key typo, of the optimizer": (("weight_decay: 0.0", "weight_decy: 0.0"), "did you mean weight_decay?"),
    "missing EXR, of the other view": (EXR.replace("ground", "aerial"), "no such file"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_mistake_in_a_config_is_named_and_mended(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, pair_config: Callable[..., Path], name: str
) -> None:
    """By the option, the line of the file or the command that is advised."""
    exchanged, told = CONFIGS[name]
    pair_config(*([] if isinstance(exchanged, str) else [exchanged]))
    if isinstance(exchanged, str):
        (pytester.path / exchanged).unlink()
    monkeypatch.setenv("CI", "true")
    first, advice = shown(pytester.runpytest_inprocess("-q", "--overfit-config", "tiny.yaml"))
    assert told in first
    assert len(first) <= MOST
    more: list[str] = []
    if advice.startswith("--overfit-set "):
        more = shlex.split(advice)
    elif advice.startswith("pytest-overfit "):
        command = [sys.executable, "-m", "pytest_overfit.cli", *shlex.split(advice)[1:]]
        subprocess.run(command, cwd=pytester.path, check=True, timeout=HANGS)
    else:
        paste(advice)
    result = pytester.runpytest_inprocess("-q", "--overfit-config", "tiny.yaml", *more)
    assert result.ret == pytest.ExitCode.OK
