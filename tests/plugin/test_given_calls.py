"""What is said of a function that a run cannot call, or that returns no loss: whose, where, what is allowed."""

from __future__ import annotations

import pytest

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F

def net():
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))

def pair():
    return torch.randn(6, 4), torch.arange(6) % 3

def step(model, batch, optimizer):
    optimizer.zero_grad()
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()

def forgetful(model, batch):
    F.cross_entropy(model(batch[0]), batch[1])

def ce(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x, y):
        ce = F.cross_entropy(self.net(x), y)
        return {"ce": ce, "reg": 0 * ce, "total": ce}

def test_it(overfit):
    LINE
"""


def said(pytester: pytest.Pytester, line: str) -> str:
    """What pytest shows of a test with one call."""
    pytester.makepyfile(test_it=HEAD.replace("LINE", line))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    return result.stdout.str()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("step=step", ["step: step (test_it.py:11) returned nothing", "allowed: the loss of the step: a scalar, ",
                       "next: end it with `return loss`"]),
        ("forgetful", ["loss: forgetful (test_it.py:16) returned nothing", "next: return what is differentiated"]),
        ("lambda m, b: None", ["loss: the lambda (test_it.py:31) returned nothing"]),
        ("step=lambda m, b: 'x'", ["step: the lambda (test_it.py:31) returned a str"]),
        ("lambda m, b: {'total': ce(m, b), 'ce': ce(m, b)}",
         ["returned no objective, only total, ce", 'next: name it so: "objective" in place of "total"']),
        ("lambda m, b: {'ce': ce(m, b), 'l2': ce(m, b)}", ['next: add what is minimised: "objective": ce + l2']),
    ],
)  # fmt: skip
def test_what_returns_no_loss_is_named(pytester: pytest.Pytester, line: str, says: list[str]) -> None:
    """A step is called a step, with the line it begins at."""
    text = said(pytester, f"overfit(net(), pair(), {line})")
    assert all(each in text for each in says), text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("overfit(net(), pair(), lambda m, x, y: m(x))", "loss: the lambda (test_it.py:31) takes (m, x, y)"),
        ("overfit(net(), pair(), lambda m: m)", "loss: the lambda (test_it.py:31) takes (m)"),
        ("overfit(net(), pair(), step=lambda m, b, o, q: 0)", "step: the lambda (test_it.py:31) takes (m, b, o, q)"),
        ("overfit(net(), pair(), ce, optimizer=lambda: 0)", "optimizer: the lambda (test_it.py:31) takes ()"),
        ("overfit(net(), pair(), ce, schedule=lambda: 0)", "schedule: the lambda (test_it.py:31) takes ()"),
        ("overfit(lambda x: net(), pair(), ce)", "model: the lambda (test_it.py:31) takes (x)"),
    ],
)
def test_a_function_that_a_run_cannot_call(pytester: pytest.Pytester, line: str, says: str) -> None:
    """What it takes, where it is, what it should take, and no frame of ours."""
    text = said(pytester, line)
    assert says in text, text
    assert "  allowed: " in text
    assert "pytest_overfit/" not in text


def test_a_total_beside_its_terms_is_not_summed_again(pytester: pytest.Pytester) -> None:
    """A model that returns its losses with their sum."""
    text = said(pytester, "overfit(Own(), pair())")
    assert "Own returned ce, reg, total: their sum counts what is in total twice" in text
    assert 'next: return it as "objective" in place of "total"' in text


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ("[]", "the batch that was passed is an empty list: pass a batch, or a loader"),
        ("{}", "the batch that was passed is an empty dict: pass a batch, or a loader"),
        ("(torch.zeros(0, 4), torch.zeros(0).long())", "batch: a batch without samples: 0 (0, 4), 1 (0,)"),
    ],
)
def test_a_batch_of_nothing(pytester: pytest.Pytester, batch: str, says: str) -> None:
    """It is said before, or beside, what the loss makes of it."""
    assert says in said(pytester, f"overfit(net(), {batch}, ce)")


def test_a_decorator_may_give_what_is_missing(pytester: pytest.Pytester) -> None:
    """What stands under it takes more than a run has, and is never called by one."""
    head = HEAD.partition("def test_it")[0]
    decorated = """
import functools

def weighted(function):
    @functools.wraps(function)
    def called(*args):
        return function(*args, 2.0)
    return called

@weighted
def loss(model, batch, weight):
    return weight * ce(model, batch)

def test_it(overfit):
    overfit(net, pair(), loss, lr=0.01)
"""
    pytester.makepyfile(test_it=head + decorated)
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
