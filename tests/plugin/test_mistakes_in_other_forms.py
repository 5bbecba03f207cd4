"""Mistakes of a first day in further forms, all in one session: each first line is the cause, each line mends it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.plugin.test_twelve_mistakes import HEAD, MOST, paste
from tests.support.sessions import HANGS

FLAT = """\
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))


def batch():
    torch.manual_seed(1)
    return torch.randn(6, 4), torch.arange(6) % 3


"""
PICTURES = """\
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


def batch():
    torch.manual_seed(1)
    return torch.randn(6, 3, 8, 8), torch.arange(6) % 3


def test_it(overfit):
    overfit(Net(), batch(), nn.CrossEntropyLoss(), lr=0.02)
"""


LENGTHS = """\
class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.rnn = nn.GRU(16, 32, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, words, lengths):
        order = lengths.argsort(descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(words[order]), lengths[order], batch_first=True)
        return self.head(self.rnn(packed)[1][0])[order.argsort()]


def batch():
    torch.manual_seed(1)
    return (torch.randint(1, 11, (6, 5)), torch.tensor([5, 2, 4, 1, 3, 5])), torch.arange(6) % 4


def loss(model, batch):
    (words, lengths), label = batch
    return F.cross_entropy(model(words, lengths), label)


def test_it(overfit):
    overfit(Tagger(), batch(), loss, lr=0.02)
"""


def own(*body: str, pre: str = "") -> str:
    """A test of a loss with these lines."""
    lines = "\n    ".join(("x, y = batch", *body))
    run = "def test_it(overfit):\n    overfit(net(), batch(), loss, lr=0.02)\n"
    return f"{FLAT}{pre}def loss(model, batch):\n    {lines}\n\n\n{run}"


TERMS = ("a = F.cross_entropy(model(x), y)", "b = 1e-4 * model(x).square().mean()")
EACH = "terms = [F.cross_entropy(model(x[i : i + 2]), y[i : i + 2]) for i in (0, 2, 4)]"
HOT = "hot = F.one_hot(y, 3).float()"
# A file, and words of the first line.
FORMS: Mapping[str, tuple[str, str]] = {
    "float of a sum": (own(*TERMS, "return float(a + b)"), "no gradient: float() cuts it"),
    "sum of items": (own(*TERMS, "return a.item() + b.item()"), "no gradient: .item() cuts it"),
    "item of one term": (own(*TERMS, "return a.item() + b"), "no gradient: .item() cuts it"),
    "data of one term": (own(*TERMS, "return sum([a.data, b])"), "no gradient: .data cuts it"),
    "tensor of floats": (
        own(EACH, "return torch.tensor([float(t) for t in terms], requires_grad=True).sum()"),
        "no gradient: float() cuts it",
    ),
    "tensor of a number": (
        own(*TERMS, "total = a + b", "value = total.item()", "return torch.tensor(value, requires_grad=True)"),
        "no gradient: .item() cuts it",
    ),
    "exchanged, a criterion": (
        own(HOT, "return criterion(hot, model(x))", pre="criterion = nn.BCEWithLogitsLoss()\n\n\n"),
        "gets the output as target and the target as input",
    ),
    "exchanged, by keyword": (
        own(HOT, "return F.binary_cross_entropy_with_logits(input=hot, target=model(x))"),
        "gets the output as target and the target as input",
    ),
    "exchanged, probabilities": (
        own(HOT, "return F.cross_entropy(hot, model(x))"),
        "cross_entropy gets the output as target and the target as input",
    ),
    "exchanged, a divergence": (
        own(HOT, "return F.kl_div((hot + 0.1) / 1.3, model(x).log_softmax(-1), reduction='batchmean')"),
        "kl_div gets the output as target and the target as input",
    ),
    "exchanged, refused": (
        own("return criterion(y, model(x))", pre="criterion = nn.CrossEntropyLoss()\n\n\n"),
        "target (6, 3), which are exchanged",
    ),
    "channels": (PICTURES.replace("Conv2d(3, 8", "Conv2d(1, 8"), "Conv2d with in_channels=1 gets 3"),
    "groups": (PICTURES.replace("GroupNorm(2, 8", "GroupNorm(2, 16"), "GroupNorm with num_channels=16 gets 8"),
    "order of rows": (
        LENGTHS.replace("[order.argsort()]", ""),
        "the rows are indexed into another order and never back",
    ),
    "ids of one column": (
        own("return F.mse_loss(model(x), y[..., None].float())"),
        "class ids (6, 1) are the target of each of 3 columns in mse_loss",
    ),
    "ids of one column, a criterion": (
        own("return nn.SmoothL1Loss()(model(x), y.view(-1, 1).float())"),
        "class ids (6, 1) are the target of each of 3 columns in smooth_l1_loss",
    ),
}


def ran(folder: Path) -> str:
    """A session of its own: what a file says goes into the names that pytest shows."""
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "-p", "no:randomly"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=HANGS).stdout


def name_of(form: str) -> str:
    return re.sub(r"\W+", "_", form)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[str, list[str], str]]:
    """By form: the first line, the lines to change, and what is told once the first of them is pasted."""
    folder, found = tmp_path_factory.mktemp("forms"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "true")  # where the summary is as wide as it needs
        patch.chdir(folder)
        for form, (text, _) in FORMS.items():
            (folder / f"test_{name_of(form)}.py").write_text(HEAD + text, encoding="utf-8")
        before = ran(folder)
        for form in FORMS:
            advice = re.findall(rf"change: (test_{name_of(form)}\.py:\d+: .*)", before)
            found[form] = (failure(before, form), list(dict.fromkeys(advice)))
            for line in advice[:1]:
                paste(line)
        after = ran(folder)
    return {form: (first, advice, failure(after, form)) for form, (first, advice) in found.items()}


def failure(text: str, form: str) -> str:
    """What pytest's short summary says of the test of a form; empty where it passed."""
    found = re.search(rf"^FAILED test_{name_of(form)}\.py\S* - (.*)", text, re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_named_and_mended(told: Mapping[str, tuple[str, list[str], str]], form: str) -> None:
    """The cause is whole in the first line, one line is advised, and that one is enough."""
    first, advice, after = told[form]
    assert FORMS[form][1] in first
    assert len(first) <= MOST
    assert len(advice) == 1
    assert after == ""
