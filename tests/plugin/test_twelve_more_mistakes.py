"""The mistakes of a first day in other forms: packages, Lightning modules, steps that are methods, own formulas."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.plugin.test_faults import rendered as rendered
from tests.plugin.test_twelve_mistakes import HEAD, MOST, paste, shown
from tests.plugin.test_twelve_mistakes import pair_config as pair_config
from tests.plugin.test_twelve_mistakes import sessions as sessions

NET = """\
class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(1, 8, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(8 * 6, classes)

    def forward(self, signal):
        return self.head(self.body(signal))


def build():
    torch.manual_seed(0)
    model = Net()
    return model


def batch():
    torch.manual_seed(1)
    return torch.randn(6, 1, 8), torch.arange(6) % 3
"""
STEP = """\
class Trainer:
    def update(self, model, batch, optim):
        signal, label = batch
        optim.zero_grad(set_to_none=True)
        total = nn.functional.cross_entropy(model(signal), label, label_smoothing=0.0)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optim.step()
        return {"objective": total}
"""
LIGHTNING = """\
class Lit(pl.LightningModule):
    def __init__(self, hidden=64, lr=1e-2):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        return {"loss": loss}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Manual(Lit):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        opt = self.optimizers()
        loss = F.cross_entropy(self.net(x), y)
        opt.zero_grad()
        self.manual_backward(loss)
        opt.step()
        return loss


def flat():
    torch.manual_seed(1)
    return torch.randn(6, 4), torch.arange(6) % 3
"""
LOSSES = """\
def parts(model, batch):
    signal, label = batch
    logits, total = model(signal), 0.0
    for part in (slice(0, 3), slice(3, 6)):
        total = total + F.cross_entropy(logits[part], label[part])
    return total


def several(model, batch):
    signal, label = batch
    wanted = F.one_hot(label, 3).float()
    return F.binary_cross_entropy_with_logits(model(signal), wanted)
"""
SETTINGS = """\
@dataclass
class Settings:
    lr: float = 1e-2
    momentum: float = 0.9


def sgd(parameters, settings=Settings()):
    return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum)
"""
FILES: Mapping[str, str] = {
    "app/__init__.py": "",
    "app/net.py": HEAD + NET,
    "app/train.py": HEAD + STEP,
    "app/lit.py": HEAD.replace("import torch\n", "import pytorch_lightning as pl\nimport torch\n", 1) + LIGHTNING,
    "app/losses.py": HEAD + LOSSES,
    "app/settings.py": "from dataclasses import dataclass\n\n" + HEAD + SETTINGS,
}
NAMES = "from torch import nn\nfrom app import lit, losses, net, settings, train\n\n\ndef test_it(overfit):\n    "
CRITERION = "overfit(net.build(), net.batch(), nn.CrossEntropyLoss())"
OWN_STEP = "overfit(net.build(), net.batch(), step=train.Trainer().update)"
LIT = "overfit(lit.Lit(), lit.flat())"
MANUAL = "overfit(lit.Manual(), lit.flat())"


@dataclass(frozen=True)
class Mistake:
    """A call that passes; what is exchanged in which file, and words of the first line, or others."""

    call: str
    file: str
    right: str
    wrong: str
    told: str


MISTAKES = {
    "wrong lr, the default of an argument": Mistake(LIT, "lit", "lr=1e-2", "lr=1e-6", "instead of 1e-06"),
    "wrong lr, of a dataclass": Mistake(
        "overfit(net.build(), net.batch(), nn.CrossEntropyLoss(), optimizer=settings.sgd)",
        "settings",
        "lr: float = 1e-2",
        "lr: float = 1e-6",
        "instead of 1e-06",
    ),
    "frozen head, by name": Mistake(
        CRITERION,
        "net",
        "    model = Net()\n",
        "    model = Net()\n    for name, parameter in model.named_parameters():\n"
        '        parameter.requires_grad = name.startswith("body")\n',
        "2 of 4 parameter tensors are frozen",
    ),
    "double softmax, in two calls": Mistake(
        CRITERION,
        "net",
        "return self.head(self.body(signal))",
        "return F.log_softmax(self.head(self.body(signal)), -1).exp()",
        "cross_entropy gets the output of a softmax",
    ),
    "wrong shape, flattened": Mistake(CRITERION, "net", "8 * 6", "8 * 8", "input (6, 48): mat1 and mat2"),
    "forgotten zero_grad, in a method": Mistake(
        OWN_STEP, "train", "        optim.zero_grad(set_to_none=True)\n", "", "gradient of the step before"
    ),
    "forgotten backward, in Lightning": Mistake(
        MANUAL, "lit", "        self.manual_backward(loss)\n", "", "no backward pass"
    ),
    "class ids into MSE, in Lightning": Mistake(
        LIT, "lit", "F.cross_entropy(", "F.mse_loss(", "mse_loss of input (6, 3)"
    ),
    ".item() of a sum": Mistake(
        "overfit(net.build(), net.batch(), losses.parts)",
        "losses",
        "total = total + F.cross_entropy(logits[part], label[part])",
        "total = total + torch.tensor(F.cross_entropy(logits[part], label[part]).item(), requires_grad=True)",
        ".item() cuts it from the model",
    ),
    ".item() in Lightning": Mistake(
        LIT,
        "lit",
        'return {"loss": loss}',
        'return {"loss": torch.tensor(loss.item(), requires_grad=True)}',
        ".item() cuts it from the model",
    ),
    "swapped arguments, silently": Mistake(
        "overfit(net.build(), net.batch(), losses.several)",
        "losses",
        "_with_logits(model(signal), wanted)",
        "_with_logits(wanted, model(signal))",
        "gets the output as target and the target as input",
    ),
}


def ran(pytester: pytest.Pytester) -> pytest.RunResult:
    """A session over the files as they are now."""
    for name in [each for each in sys.modules if each.partition(".")[0] == "app"]:
        del sys.modules[name]
    for folder in pytester.path.rglob("__pycache__"):
        shutil.rmtree(folder)
    return pytester.runpytest_inprocess("-q", "-W", "ignore")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_package_is_named_and_mended(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The first line of the short summary, and the line that is advised."""
    mistake = MISTAKES[name]
    files = {**FILES, "test_it.py": NAMES + mistake.call + "\n"}
    changed = f"app/{mistake.file}.py"
    assert files[changed].count(mistake.right) >= 1
    files[changed] = files[changed].replace(mistake.right, mistake.wrong, 1)
    for path, text in files.items():
        (pytester.path / path).parent.mkdir(exist_ok=True)
        (pytester.path / path).write_text(text, encoding="utf-8")
    monkeypatch.setenv("CI", "true")  # where the summary is as wide as it needs
    pytester.syspathinsert()
    result = ran(pytester)
    first, advice = shown(result)
    assert any(words in first for words in mistake.told.split(" | "))
    assert len(first) <= MOST
    told = [line.removeprefix("E").split("change: ")[-1] for line in result.outlines if "change: " in line]
    assert len({line for line in told if re.match(r"\S+\.py:\d+: ", line)}) == 1, told  # no two lines contradict
    paste(advice)
    assert ran(pytester).ret == pytest.ExitCode.OK
