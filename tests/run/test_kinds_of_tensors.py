"""Every kind of tensor in every place of a run: a healthy run passes, one of a few steps fails with a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from pytest_overfit import OverfitError, OverfitResult, run_overfit
from pytest_overfit.run.call_task import as_one_module
from pytest_overfit.run.snapshot import Snapshot

pytestmark = pytest.mark.filterwarnings(
    "ignore:Sparse (CSR|BSR|CSC)", "ignore:.*uantiz", "ignore:.*nested", "ignore:.*onverting", "ignore:ComplexHalf"
)

ALLOWED = ["degenerate-batch", "input-ignored"]  # an input of ones, or that nothing is read of, would be blamed
LABELS = torch.arange(6) % 3


class Wrapped(Tensor):
    """As an image of torchvision: ``__torch_function__`` keeps the class."""


class Strict(Tensor):
    """Knows few functions, and refuses the others."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("reshape", "flip", "roll", "min", "max", "unique", "square", "mean"):
            raise NotImplementedError(f"{name} is not for {cls.__name__}")
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


class Around(Tensor):
    """A wrapper without numbers of its own, as a sharded or a quantised tensor: few operations are written for it."""

    inner: Tensor  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> Around:
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, requires_grad=inner.requires_grad)
        made.inner = inner
        return made

    def __init__(self, inner: Tensor) -> None:
        """Nothing: ``__new__`` has it all."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        name = func.overloadpacket.__name__
        if name not in ("detach", "clone", "mm", "add", "t", "_to_copy", "copy_", "alias", "sum"):
            raise NotImplementedError(f"{name} is not written for {cls.__name__}")
        plain = tree_map(lambda each: each.inner if type(each) is Around else each, (args, kwargs or {}))
        out = func(*plain[0], **plain[1])
        return Around(out) if name in ("detach", "clone", "_to_copy", "alias") else out


def eye(kind: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
    return lambda: kind(torch.eye(6))


KINDS: dict[str, Callable[[], Tensor]] = {
    "coo": eye(lambda t: t.to_sparse()),
    "csr": eye(lambda t: t.to_sparse_csr()),
    "csc": eye(lambda t: t.to_sparse_csc()),
    "bsr": eye(lambda t: t.to_sparse_bsr((2, 2))),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(n) for n in (2, 3, 1, 2, 3, 1)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(n) for n in (2, 3, 1, 2, 3, 1)], layout=torch.jagged),
    "complex": eye(lambda t: t.to(torch.complex64)),
    "quantised": eye(lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
    "meta": eye(lambda t: t.to("meta")),
    "mkldnn": eye(lambda t: t.to_mkldnn()),
    "bfloat16": eye(lambda t: t.bfloat16()),
    "float16": eye(lambda t: t.half()),
    "float8": eye(lambda t: t.to(torch.float8_e4m3fn)),
    "bool": eye(lambda t: t.bool()),
    "uint8": eye(lambda t: t.to(torch.uint8)),
    "uint16": eye(lambda t: t.to(torch.uint16)),
    "uint32": eye(lambda t: t.to(torch.uint32)),
    "uint64": eye(lambda t: t.to(torch.uint64)),
    "complex32": eye(lambda t: t.to(torch.complex32)),
    "int": eye(lambda t: t.long()),
    "empty": lambda: torch.zeros(6, 0),
    "nothing": lambda: torch.zeros(0),
    "scalar": lambda: torch.tensor(1.0),
    "class of its own": eye(lambda t: t.as_subclass(Wrapped)),
    "class that refuses": eye(lambda t: t.as_subclass(Strict)),
    "wrapper": eye(Around),
}
NOT_TRAINED = {
    "quantised",
    "meta",
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "complex32",
    "int",
    "float8",
    "mkldnn",
    "nested",
    "jagged",
}


def dense(tensor: Tensor) -> Tensor:
    """A number of each of six samples out of any kind of tensor, as a user would get it."""
    if type(tensor) is Around:
        return torch.zeros(6, 6).mm(tensor)
    if tensor.is_meta:
        return torch.zeros(6, 6)
    if tensor.is_nested:
        return torch.stack([part.sum() for part in tensor.unbind()])[:, None].expand(6, 6)
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.layout is not torch.strided:
        return tensor.to_dense()
    if tensor.is_complex():
        return tensor.real.float()
    if tensor.numel() < 2:
        return tensor.sum().expand(6, 6)
    return tensor.float().as_subclass(Tensor)


class Net(nn.Module):
    """Six samples of four numbers to three classes; ``beside`` is used, ``extra`` is handed over and used."""

    def __init__(self, parameter: Tensor | None = None, buffer: Tensor | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))
        self.register_buffer("kept", buffer)
        self.own = None if parameter is None else nn.Parameter(parameter, requires_grad=trains(parameter))

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Any:
        out = self.body(x)
        for each in (extra, self.kept, self.own):
            if isinstance(each, Tensor):
                out = out + 1e-2 * dense(each)[:, :3]
        return out


class Returning(Net):
    """Returns a tensor of a kind beside its logits."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Any:
        return {"logits": super().forward(x), "beside": self.make()}


def trains(tensor: Tensor) -> bool:
    return (
        (tensor.is_floating_point() or tensor.is_complex())
        and tensor.layout is torch.strided
        and not (tensor.is_nested or tensor.dtype is torch.float8_e4m3fn or type(tensor) is Around)
    )


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 1e-2, eps=1e-5)  # which float16 can hold


def both(model: Callable[[], nn.Module], batch: Any, loss: Any, **more: Any) -> tuple[OverfitResult, OverfitResult]:
    """The run with its defaults, and with three steps."""
    more = {"optimizer": adam, **more}
    return run_overfit(model, batch, loss, **more), run_overfit(model, batch, loss, **more, max_steps=3)


def verdicts(healthy: OverfitResult, short: OverfitResult) -> None:
    assert healthy.passed, healthy.failure_text()
    assert not short.passed
    assert "objective" in short.failure_text()
    for result in (healthy, short):
        assert [each.text() for each in result.not_asked if each.ours] == []


def classified(model: Any, batch: Any) -> Tensor:
    out = model(batch["x"], batch["extra"])
    return F.cross_entropy(out["logits"] if isinstance(out, dict) else out, batch["y"])


@pytest.mark.parametrize("kind", KINDS)
def test_beside_the_input(kind: str) -> None:
    """A tensor of every kind in the batch, which the model reads."""
    extra = KINDS[kind]()
    verdicts(*both(Net, {"x": torch.randn(6, 4), "extra": extra, "y": LABELS}, classified, allow=ALLOWED))


@pytest.mark.parametrize("kind", KINDS)
def test_in_an_output(kind: str) -> None:
    """A tensor of every kind beside the prediction."""
    batch = {"x": torch.randn(6, 4), "extra": None, "y": LABELS}
    verdicts(*both(lambda: Returning(KINDS[kind]), batch, classified))


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_buffer(kind: str) -> None:
    """A buffer of every kind; one on the meta device has no values."""
    batch = {"x": torch.randn(6, 4), "extra": None, "y": LABELS}
    if kind == "meta":
        with pytest.raises(OverfitError, match="kept is on the meta device"):
            run_overfit(lambda: Net(buffer=KINDS[kind]()), batch, classified)
        return
    verdicts(*both(lambda: Net(buffer=KINDS[kind]()), batch, classified))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NOT_TRAINED])
def test_in_a_parameter(kind: str) -> None:
    """A parameter of every kind that there can be one of."""
    batch = {"x": torch.randn(6, 4), "extra": None, "y": LABELS}
    verdicts(*both(lambda: Net(parameter=KINDS[kind]()), batch, classified))


@pytest.mark.parametrize("sparse", [torch.optim.SparseAdam, torch.optim.SGD])
def test_sparse_gradients(sparse: Any) -> None:
    """An embedding whose gradient is sparse."""

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(9, 32, sparse=True), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x).mean(1))  # type: ignore[no-any-return]

    def optimizers(parameters: Any) -> list[torch.optim.Optimizer]:
        words, *others = parameters
        return [sparse([words], lr=1e-2 if sparse is torch.optim.SparseAdam else 1.0), adam(others)]

    batch = torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8], [1, 4], [2, 8]]), LABELS
    verdicts(*both(Words, batch, nn.CrossEntropyLoss(), optimizer=optimizers))


def test_integers_alone() -> None:
    """A batch without a single real number."""
    batch = torch.arange(24).reshape(6, 4), LABELS
    verdicts(*both(Net, batch, lambda m, b: F.cross_entropy(m(b[0].float() / 24), b[1])))


def test_a_module_on_the_meta_device_is_refused() -> None:
    """With the name of what has no values, and what to do."""
    with torch.device("meta"):
        model = nn.Linear(4, 3)
    with pytest.raises(OverfitError, match=r"(?s)weight is on the meta device.*to_empty"):
        as_one_module(model)


def test_a_parameter_that_cannot_be_copied_is_refused() -> None:
    """It could not be put back after the run."""

    class Bare(Around):
        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
            raise NotImplementedError("nothing is written")

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = Bare(torch.eye(6).requires_grad_())

    with pytest.raises(OverfitError, match=r"(?s)class Bare cannot be copied.*detach"):
        Snapshot().add(Held())


@pytest.mark.parametrize("start", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("spoilt", [False, True])
def test_a_constant_that_is_infinite_from_the_start(start: float, spoilt: bool) -> None:
    """Bounds and masks are no finding while they stay bit for bit what they are; what becomes infinite is one."""

    class Bounded(Net):
        def __init__(self) -> None:
            super().__init__(buffer=None)
            self.register_buffer("bound", torch.tensor([start, 1.0]))

        def forward(self, x: Tensor, extra: Tensor | None = None) -> Any:
            if spoilt:
                self.get_buffer("bound")[1] = start
            return super().forward(x)

    batch = {"x": torch.randn(6, 4), "extra": None, "y": LABELS}
    result = run_overfit(Bounded, batch, classified, optimizer=adam)
    assert result.passed is not spoilt
    assert ("buffer bound is not finite" in result.failure_text()) is spoilt


def test_a_frozen_parameter_that_is_infinite_from_the_start() -> None:
    """As a buffer: nobody moves it."""

    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.mask = nn.Parameter(torch.tensor([0.0, float("-inf")]), requires_grad=False)

    batch = {"x": torch.randn(6, 4), "extra": None, "y": LABELS}
    verdicts(*both(Masked, batch, classified))


@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32, torch.uint64])
def test_labels_of_a_type_that_torch_hardly_computes_with(kind: torch.dtype) -> None:
    """They are asked as others are: what throws most of them away is told."""
    batch = (torch.randn(8, 4), (torch.arange(8) % 3).to(kind))
    verdicts(*both(Net, batch, lambda m, b: F.cross_entropy(m(b[0]), b[1].long())))
    thrown = run_overfit(Net, batch, lambda m, b: F.cross_entropy(m(b[0])[:1], b[1].long()[:1]), optimizer=adam)
    assert "the loss reads little of 1: 12% of 8 elements" in thrown.failure_text()


@pytest.mark.parametrize("kind", [torch.complex64, torch.complex32])
def test_a_complex_target(kind: torch.dtype) -> None:
    """Its real part is what is predicted."""
    target = torch.randn(6, 3, dtype=torch.complex64).to(kind)
    batch = {"x": torch.randn(6, 4), "y": target}
    verdicts(*both(Net, batch, lambda m, b: (m(b["x"]) - b["y"].to(torch.complex64).real).square().mean()))


class Refusing(Tensor):
    """As an output that carries names or boxes: it cannot be compared, copied or detached by torch's functions."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("equal", "clone", "detach"):
            raise TypeError(f"{func.__name__} is not for {cls.__name__}")
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


def test_an_output_that_refuses_to_be_compared() -> None:
    """The prediction itself is of a class of its own."""

    class Boxed(Net):
        def forward(self, x: Tensor, extra: Tensor | None = None) -> Any:
            return super().forward(x).as_subclass(Refusing)

    batch = {"x": torch.randn(6, 4), "y": LABELS}
    model_loss = lambda m, b: F.cross_entropy(m(b["x"]).as_subclass(Tensor), b["y"])  # noqa: E731
    result = run_overfit(Boxed, batch, model_loss, optimizer=adam, diagnose=False)
    assert result.passed, result.failure_text()
    supervised = next(finding for finding in result.findings if finding.name == "supervised")
    assert supervised.judged
    assert supervised.passed
