"""Advice that reads as a line to paste is pasted, by replacing text in the file, and the run passes."""

from __future__ import annotations

import re
import sys
from functools import partial
from importlib import util
from pathlib import Path

import pytest
import torch

import pytest_overfit
from pytest_overfit import OverfitResult
from pytest_overfit.diagnose.call_site import Asked
from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.exchanged_lines import output_first, output_first_at
from pytest_overfit.diagnose.lines_to_change import with_lines
from pytest_overfit.diagnose.source_lines import (
    Edit,
    Source,
    extended,
    inactive,
    keyword,
    line_to_change,
    squeezed,
    trainable,
    while_training,
    without,
)
from pytest_overfit.diagnose.uncut_lines import cut_free, made_again, made_of
from pytest_overfit.judge.finding import is_line
from pytest_overfit.settings.cause_ids import IDS
from tests.docs.test_causes import PRELUDE, SECTIONS
from tests.support.examples import SECONDS, told
from tests.support.records import record


class InConfig:
    """What a config is changed by."""

    def rate(self, was: float, works: float) -> str:
        return f"--overfit-set optim.optimizer.lr={works}"

    def no_decay(self) -> str:
        return ""

    def thawed(self) -> str:
        return "--overfit-set 'optim.frozen_module_names=[]'"

    def clip(self, below: float, now: str) -> str:
        return f"--overfit-set optim.gradient_clip.configs.0.max_norm={now}"

    def weight(self, term: str) -> str:
        return f"--overfit-set loss.{term}.weight=1.0"

    def place(self, key: str) -> str:
        return f"mine.yaml:9 {key}"

    def lasting(self) -> str:
        return "--overfit-set optim.options.lr.0.scheduler.until=1"


# Of the examples of docs/causes.md, those whose advice is a line.
PASTED = {
    *("lr-high", "lr-low", "few-steps", "lr-group", "weight-decay", "optimizer-hyperparameter", "grad-clip", "no-step"),
    *("grad-accumulation", "frozen", "unregistered", "no-gradient", "zero-gradient", "double-activation", "broadcast"),
    *("loss-clamped", "loss-floor", "loss-scale", "loss-sign", "output-range", "stochastic"),
}


def run_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> OverfitResult:
    """The ``result`` of a file, imported anew."""
    monkeypatch.setattr(pytest_overfit, "run_overfit", partial(RUN, diagnose_seconds=SECONDS))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of a file that changes within a second, and not its size
    spec = util.spec_from_file_location("example", path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "example", module)
    with torch.random.fork_rng():
        spec.loader.exec_module(module)
    result = module.result
    assert isinstance(result, OverfitResult)
    return result


RUN = pytest_overfit.run_overfit


def pasted(text: str, advice: str) -> str:
    """The text of a file with the line in its place, or the keyword in its call."""
    line = re.match(r"\S+\.py:(?P<number>\d+): (?P<code>.*)", advice)
    if line is None:
        return re.sub(r"\)\n*$", f", {advice})\n", text)
    lines = text.splitlines()
    place = int(line["number"]) - 1
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    lines[place] = indent + line["code"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("before", "edit", "after"),
    [
        ("opt = SGD(p, 3.0)", keyword("lr", 3.0, "0.3", calls=("SGD",)), "a.py:1: opt = SGD(p, 0.3)"),
        ("lr = 1e-6", keyword("lr", 1e-6, "0.01"), "a.py:1: lr = 0.01"),
        ("x = F.dropout(x, 0.1)", while_training, "a.py:1: x = F.dropout(x, 0.1, training=self.training)"),
        ("x = F.dropout(x, 0.1, self.training)", while_training, ""),
        ("x = self.dropout(x)", while_training, ""),
        ("a(lr=0.1), b(lr=0.1)", keyword("lr", 0.5, "0.3"), ""),
        ("a(lr=0.1)\nb(lr=0.1)", keyword("lr", 0.1, "0.3"), ""),
        ("x = F.softmax(a + b, dim=1) * 2", without("softmax"), "a.py:1: x = (a + b) * 2"),
        ("x = (a + b).softmax(1)", without("softmax"), "a.py:1: x = (a + b)"),
        ("y = nn.Softmax(dim=1)", without("softmax"), "a.py:1: y = nn.Identity()"),
        ("return_ = torch.tensor(x.item())", cut_free(), "a.py:1: return_ = x"),
        ("y = a.item() + b.item()", cut_free(".item()"), "a.py:1: y = a + b"),
        ("y = a.item() + b.detach()", cut_free(".item()"), "a.py:1: y = a + b.detach()"),
        ("y = 2 * (a + b).item()", cut_free(".item()"), "a.py:1: y = 2 * (a + b)"),
        ("y += float(a - b) / 2", cut_free("float()"), "a.py:1: y += (a - b) / 2"),
        ("y = a.data - b", cut_free(".data"), "a.py:1: y = a - b"),
        ("y = torch.tensor([float(a), b.item()]).sum()", cut_free("float()"), "a.py:1: y = torch.stack([a, b]).sum()"),
        ("y = torch.tensor(sum(t.item() for t in a))", cut_free(".item()"), "a.py:1: y = sum(t for t in a)"),
        ("y = torch.tensor(1.0).requires_grad_()", cut_free(".item()"), ""),
        ("y = torch.as_tensor(float(a)).requires_grad_()", cut_free("float()"), "a.py:1: y = a"),
        ("def f(a):\n  v = a.item()\n  return torch.tensor(v)", made_of("a.py:2"), "a.py:3: return a"),
        (
            "def f(a):\n  v = [t.item() for t in a]\n  return torch.tensor(v)",
            made_of("a.py:2"),
            "a.py:3: return torch.stack([t for t in a])",
        ),
        ("def f(a):\n  v = a.item()\n  return v", made_of("a.py:2"), ""),
        ("p.requires_grad = False", trainable, "a.py:1: p.requires_grad = True"),
        ("loss = (p - y).abs()", squeezed("-", 1), "a.py:1: loss = (p - y.squeeze(-1)).abs()"),
        ("overfit(a, b)", extended(("overfit",), "lr", "0.01"), "a.py:1: overfit(a, b, lr=0.01)"),
        ("overfit(a, lr=rate)", extended(("overfit",), "lr", "0.01"), ""),
        ("overfit(a, **more)", extended(("overfit",), "lr", "0.01"), ""),
        ("overfit()", extended(("overfit",), "lr", "0.01"), "a.py:1: overfit(lr=0.01)"),
        ("e = 'ß', f(lr=1.0)", keyword("lr", 1.0, "2"), "a.py:1: e = 'ß', f(lr=2)"),
        ("def f(a, lr=1e-6): ...", keyword("lr", 1e-6, "0.1"), "a.py:1: def f(a, lr=0.1): ..."),
        ("def f(*, b=1, lr=1e-6): ...", keyword("lr", 1e-6, "0.1"), "a.py:1: def f(*, b=1, lr=0.1): ..."),
        ("class C:\n    lr: float = 1e-6", keyword("lr", 1e-6, "0.1"), "a.py:2: lr: float = 0.1"),
        ("self.learning_rate = 1e-6", keyword("lr", 1e-6, "0.1"), "a.py:1: self.learning_rate = 0.1"),
        ("def f(lr=1e-6): ...\ndef g(lr=1e-6): ...", keyword("lr", 1e-6, "0.1"), ""),
        ("x = F.log_softmax(a + b, -1).exp()", inactive("softmax"), "a.py:1: x = (a + b)"),
        ("x = torch.exp(h.log_softmax(dim=-1))", inactive("exp"), "a.py:1: x = h"),
        ("x = F.log_softmax(a, -1)", inactive("softmax"), ""),
        ("p.requires_grad = n in names", trainable, "a.py:1: p.requires_grad = True"),
        ("p.requires_grad = True", trainable, ""),
        ("x = torch.tensor(y.item())", made_again, "a.py:1: x = y"),
        ("print(y.item())", made_again, ""),
        ("def f(m, b): return kl_div(b, m(b))", output_first, "a.py:1: def f(m, b): return kl_div(m(b), b)"),
        ("def f(m, b):\n  o = m(b)\n  kl_div(b, o)", output_first, "a.py:3: kl_div(o, b)"),
        ("def f(m, b): return kl_div(m(b), b)", output_first, ""),
        ("def f(m, b): return kl_div(m.head(b), m(b))", output_first, ""),
        ("lambda o, t: nll_loss(t, o)", output_first, "a.py:1: lambda o, t: nll_loss(o, t)"),
        ("def f(m, b): return c(b, m(b))", output_first_at("a.py:1"), "a.py:1: def f(m, b): return c(m(b), b)"),
        ("def f(m, b): return c(b, m(b))", output_first_at("a.py:2"), ""),
        ("def f(m, b): return c(b, m(b))", output_first_at("b.py:1"), ""),
        (
            "def f(m, b): return c(input=b, target=m(b), x=1)",
            output_first_at("a.py:1"),
            "a.py:1: def f(m, b): return c(input=m(b), target=b, x=1)",
        ),
        ("def f(m, b):\n  o, _ = m(b)\n  kl_div(b, o)", output_first, "a.py:3: kl_div(o, b)"),
        ("f(\n  a,\n)", without("f"), ""),
        ("f(", without("f"), ""),
    ],
)
def test_one_place_of_a_file_is_changed(before: str, edit: Edit, after: str) -> None:
    """Nothing where it cannot be told which is meant, or where a statement takes several lines."""
    assert line_to_change([Source("a.py", before)], edit) == after


def test_of_several_places_the_one_that_takes_part_is_meant() -> None:
    """The lines of the function that called."""
    text = "def f():\n    a(lr=0.1)\n\n\ndef g():\n    a(lr=0.1)\n"
    assert line_to_change([Source("a.py", text, ((5, 6),))], keyword("lr", 0.1, "1")) == "a.py:6: a(lr=1)"


@pytest.mark.parametrize(("steps", "more"), [(390.0, " --overfit-max-steps 800"), (120.0, "")])
def test_a_rate_that_was_proven_at_the_end_of_the_budget_comes_with_more_steps(steps: float, more: str) -> None:
    """Of a config, whose options round the rate."""
    cause = Cause("lr-low", "", "", "", "proven", {"lr": 2e-6, "works": 0.001, "steps": steps})
    asked = Asked(config=InConfig())
    evidence = Evidence(record(planned_steps=400), (), {})
    (changed,) = with_lines([cause], evidence, asked)
    assert changed.advice == f"--overfit-set optim.optimizer.lr=0.001{more}"


@pytest.mark.parametrize(
    ("cause", "where", "advice"),
    [
        (
            Cause("lr-low", "(AdamW), group 0", "", "", "proven", {"lr": 2e-6, "works": 0.001}),
            "mine.yaml:9 optim.optimizer.lr: (AdamW), group 0",
            "--overfit-set optim.optimizer.lr=0.001",
        ),
        (
            Cause("grad-clip", "the train step", "", "clip at 10, or not", "proven", {"norm": 1.0, "most": 1e-9}),
            "mine.yaml:9 optim.gradient_clip.configs.0.max_norm",
            "--overfit-set optim.gradient_clip.configs.0.max_norm=10",
        ),
        (
            Cause("term-weight", "term camera", "", "weigh camera", "shown", {"weight": 0.0}),
            "mine.yaml:9 loss.camera.weight: term camera",
            "--overfit-set loss.camera.weight=1.0",
        ),
        (
            Cause("term-weight", "term camera", "", "lower the weight of camera", "shown", {"weight": 50.0}),
            "term camera",
            "lower the weight of camera",
        ),
        (
            Cause("no-gradient", "trunk.*", "", "call them outside of it; or declare frozen=['trunk.*']", "shown"),
            "trunk.*",
            "call them outside of it; or set overfit.criteria.frozen=['trunk.*']",
        ),
    ],
)
def test_of_a_config_the_key_and_its_line_are_told(cause: Cause, where: str, advice: str) -> None:
    """Where the advice sets one; what it cannot set stays as it is."""
    evidence = Evidence(record(planned_steps=400), (), {})
    (changed,) = with_lines([cause], evidence, Asked(config=InConfig()))
    assert (changed.where, changed.advice) == (where, advice)
    (plain,) = with_lines([cause], evidence, Asked())
    assert plain.where == cause.where


@pytest.mark.parametrize(
    ("advice", "line"),
    [("exchange its arguments: what is predicted comes first", "a.py:2: kl_div(o(b), b)"), ("map the labels", "")],
)
def test_target_and_output_are_exchanged_where_that_is_advised(advice: str, line: str) -> None:
    """In the one call that has them the wrong way round."""
    asked = Asked((Source("a.py", "def f(o, b):\n  kl_div(b, o(b))"),))
    (changed,) = with_lines([Cause("target-mismatch", "", "", advice)], Evidence(record(), (), {}), asked)
    assert changed.advice == (line or advice)


@pytest.mark.parametrize("cause", IDS)
def test_what_an_example_is_advised_works(cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken example of a cause, in a file of its own: its first advice, where that is a line, mends it."""
    path = tmp_path / "test_example.py"
    path.write_text(f"{PRELUDE}\n\n{SECTIONS[cause].examples[0]}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    advice = run_file(path, monkeypatch).causes[0].advice
    assert is_line(advice) == (cause in PASTED), advice
    if not is_line(advice):
        return
    path.write_text(pasted(path.read_text(encoding="utf-8"), advice), encoding="utf-8")
    result = run_file(path, monkeypatch)
    assert result.passed, told(result)


def test_dropout_of_a_healthy_model_is_told_with_the_line_that_leaves_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer of torch with its defaults: the floor is its dropout."""
    path = tmp_path / "test_example.py"
    path.write_text(f"{PRELUDE}\n\n{DROPPING}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    cause = run_file(path, monkeypatch).causes[0]
    assert (cause.id, cause.strength) == ("stochastic", "proven")
    assert cause.observed.startswith("dropout is the floor of the loss: ")
    assert cause.advice.endswith("layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)")
    path.write_text(pasted(path.read_text(encoding="utf-8"), cause.advice), encoding="utf-8")
    result = run_file(path, monkeypatch)
    assert result.passed, told(result)


DROPPING = """\
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.embed, self.body, self.head = nn.Embedding(24, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 5)

    def forward(self, tokens):
        return self.head(self.body(self.embed(tokens)))


batch = torch.arange(24).reshape(4, 6), torch.randn(4, 6, 5)
result = run_overfit(Reader, batch, F.mse_loss, max_steps=200)
"""
