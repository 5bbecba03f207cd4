"""Models, batches and losses that torch allows and few write: a verdict, or one error that says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitError, OverfitResult, run_overfit

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.jit", "ignore:.*torch.jit")
X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3
CE = nn.CrossEntropyLoss()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))


def learn(model: nn.Module, data: Any = (X, Y), loss: Any = CE, **settings: Any) -> OverfitResult:
    return run_overfit(model, data, loss, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), **settings)


def green(result: OverfitResult) -> None:
    assert result.passed, result.failure_text()
    assert [each.text() for each in result.not_asked if each.ours] == []


class Holding(nn.Module):
    """A layer behind a module that was given."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first, self.last = first, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))  # type: ignore[no-any-return]


def scripted() -> Any:
    return torch.jit.script(net())


def traced() -> Any:
    return torch.jit.trace(net(), X)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("make", [scripted, traced])
@pytest.mark.parametrize("held", [False, True])
def test_a_compiled_graph(make: Any, held: bool) -> None:
    """It is heard, watched and put back as any other, by itself and in a model."""
    model = Holding(make()) if held else make()
    before = [p.detach().clone() for p in model.parameters()]
    green(learn(model))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    short = learn(model, max_steps=3)
    assert not short.passed
    assert [each.text() for each in short.not_asked if each.ours] == []


def deep(kind: str) -> Any:
    nest: Any = {} if kind == "dicts" else []
    if kind == "itself":
        nest.extend([nest, nest])
        return nest
    for _ in range(3000):
        nest = {"a": nest} if kind == "dicts" else (nest,) if kind == "tuples" else [nest]
    return nest


@pytest.mark.parametrize("kind", ["itself", "lists", "dicts", "tuples"])
def test_a_nest_without_end(kind: str) -> None:
    """In a batch it is refused with a word; beside an output it is left out."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Any:
            return {"logits": self.net(x), "beside": deep(kind)}

    with pytest.raises(OverfitError, match=r"in the batch holds itself, or lies more than 64 levels deep"):
        learn(net(), {"x": X, "y": Y, "more": deep(kind)}, lambda m, b: F.cross_entropy(m(b["x"]), b["y"]))
    green(learn(Beside(), (X, Y), lambda m, b: F.cross_entropy(m(b[0])["logits"], b[1])))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.tensor(1.0, device="meta"), "the term extra is on the meta device"),
        (torch.tensor(1 + 2j), "the term extra is complex"),
        (10**400, "the term extra is a number beyond every float"),
    ],
)
def test_a_term_that_is_no_real_number(value: Any, says: str) -> None:
    """The error names it, though it is only reported."""
    with pytest.raises(OverfitError, match=says):
        learn(net(), loss=lambda m, b: {"loss": F.cross_entropy(m(b[0]), b[1]), "extra": value})


def test_a_complex_objective() -> None:
    """Before torch refuses to differentiate it."""
    with pytest.raises(OverfitError, match="the objective is complex"):
        learn(net(), loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]).to(torch.complex64))


class Key:
    """Without a name."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_key_without_text() -> None:
    """It goes by its class, in a batch, an output and the terms."""

    class Keyed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Any:
            return {"logits": self.net(x), Key(): torch.ones(2)}

    def loss(model: Any, batch: Any) -> Any:
        return {"loss": F.cross_entropy(model(batch["x"])["logits"], batch["y"]), Key(): 1.0}

    green(learn(Keyed(), {"x": X, "y": Y, Key(): torch.ones(1)}, loss))


def test_a_lazy_layer_that_is_never_called() -> None:
    """It learns nothing, which is said of it."""

    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.never = net(), nn.LazyLinear(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)  # type: ignore[no-any-return]

    result = learn(Lazy())
    gradients = next(finding for finding in result.findings if finding.name == "gradients")
    assert "no gradient arrives" in gradients.text()
    assert "never.weight" in gradients.text()


class Unmeasured(list[Any]):
    def __len__(self) -> int:
        raise RuntimeError("no length")


class Unwalked(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("no walk")


@pytest.mark.parametrize("kind", [Unmeasured, Unwalked])
def test_a_list_that_refuses(kind: Any) -> None:
    """Python's own list tells what it holds."""
    green(learn(net(), kind([X, Y])))
