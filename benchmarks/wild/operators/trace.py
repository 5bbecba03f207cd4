"""One call of a program's loss, written down: which modules are called with what, and which functions of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from benchmarks.wild.case import Program

PAIRS: tuple[Callable[..., Tensor], ...] = (
    F.cross_entropy, F.nll_loss, F.binary_cross_entropy_with_logits, F.binary_cross_entropy, F.mse_loss, F.l1_loss,
    F.smooth_l1_loss, F.huber_loss,
)  # fmt: skip
SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
ATTENTION = (F.scaled_dot_product_attention,)
FILLS = (torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_)
LOW = -1e4  # a score below this one lets nothing through
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModuleCall:
    """The first call of a module.

    ``came`` and ``went`` are the shapes of the first tensor among its arguments and of its output, where that is a
    tensor of floating point. ``graph`` says that gradients flow back from the output, ``own`` how many trainable
    parameters the module has itself, ``below`` how many with all of its parts.
    """

    name: str
    module: str
    came: Shape | None
    went: Shape | None
    graph: bool
    own: int
    below: int

    @property
    def keeps_shape(self) -> bool:
        """Whether its output could be left out."""
        return self.went is not None and self.came == self.went


@dataclass(frozen=True)
class LossCall:
    """A call of a loss function of torch, by its number among them: its arguments' shapes, and its target."""

    function: str
    output: Shape
    target: Tensor
    grad: bool


@dataclass(frozen=True)
class Attention:
    """A call of torch's attention: the module, its queries' shape, whether it has a mask, and hides the future."""

    module: str
    query: Shape
    masked: bool
    causal: bool


@dataclass(frozen=True)
class Hiding:
    """A call that hides keys of an attention: the module, and whether what it hides is the future, or padding."""

    module: str
    future: bool
    padding: bool


@dataclass
class Trace:
    """What happened in one call of the loss.

    ``softmaxes`` and ``attentions`` are the names of the modules that called them, ``hidings`` the masks of attentions
    that were called or written out, ``inputs`` the paths of the tensors of the batch that the model got as they were,
    ``masks`` the keywords of a mask of (sample, token) among them.
    ``rows`` is the number of samples: the length that most tensors of the batch have. ``repeats`` says that the loss is
    the same number twice in evaluation: that nothing is drawn there on purpose. ``more`` is the trace with one sample
    more, where the program runs with one.
    """

    modules: list[ModuleCall] = field(default_factory=list)
    losses: list[LossCall] = field(default_factory=list)
    softmaxes: list[tuple[str, Shape]] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)
    hidings: list[Hiding] = field(default_factory=list)
    transposes: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    rows: int = 0
    repeats: bool = False

    more: Trace | None = None

    def of_samples(self) -> set[str]:
        """The modules whose output has samples for its first axis, or parts of them such as windows."""
        others = {call.name: call.went for call in self.more.modules} if self.more else {}
        return {call.name for call in self.modules if self._has_samples(call.went, others.get(call.name))}

    def mixed_softmaxes(self) -> list[str]:
        """The modules whose softmax could run over samples."""
        return self._with_samples(self.softmaxes, self.more.softmaxes if self.more else [])

    def mixed_attentions(self) -> list[str]:
        """The modules whose attention, without any mask, could run over samples."""
        return self._with_samples(self._free(), self.more._free() if self.more else [])

    def _free(self) -> list[tuple[str, Shape]]:
        return [(each.module, each.query) for each in self.attentions if not each.causal and not each.masked]

    def _with_samples(self, calls: list[tuple[str, Shape]], others: list[tuple[str, Shape]]) -> list[str]:
        same = [name for name, _ in calls] == [name for name, _ in others]
        twins: list[Shape | None] = [shape for _, shape in others] if same else [None] * len(calls)
        pairs = zip(calls, twins, strict=True)
        return sorted({name for (name, shape), twin in pairs if self._has_samples(shape, twin)})

    def _has_samples(self, shape: Shape | None, more: Shape | None) -> bool:
        if not shape or len(shape) < 2 or self.rows < 2 or shape[0] % self.rows:
            return False
        if self.more is None:
            return True
        return more is not None and len(more) > 0 and more[0] * self.rows == shape[0] * (self.rows + 1)

    def places(self, fits: Callable[[ModuleCall], bool]) -> list[ModuleCall]:
        """Parts of the model, not all of it, that fit."""
        return [each for each in self.modules if each.name and fits(each)]


def leaves(batch: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch by their paths."""
    found, _ = _pytree.tree_flatten_with_path(batch)
    for path, value in found:
        if isinstance(value, Tensor):
            yield _pytree.keystr(path), value


def leaf(batch: Any, path: str) -> Tensor:
    """The tensor of a batch at a path."""
    return dict(leaves(batch))[path]


class _Listening(TorchFunctionMode):
    """Writes down the functions that operators know; ``inside`` is the stack of modules."""

    def __init__(self, trace: Trace, inside: list[str]) -> None:
        super().__init__()
        self.trace, self.inside = trace, inside

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        at = self.inside[-1] if self.inside else None
        if func in PAIRS and (pair := pair_of(args, kwargs)) is not None:
            output, target, _ = pair
            self.trace.losses.append(
                LossCall(func.__name__, tuple(output.shape), target.detach().clone(), output.requires_grad)
            )
        elif at is None:
            pass
        elif func in SOFTMAX:
            self.trace.softmaxes.append((at, tuple(args[0].shape)))
        elif func in ATTENTION:
            self.trace.attentions.append(_attention(at, *args, **kwargs))
            self._hides(at, hidden_keys(*args, **kwargs))
        elif func in FILLS and (filled := filled_scores(*args, **kwargs)) is not None:
            self._hides(at, filled)
        elif func is Tensor.transpose and args[0].dim() == 4 and args[1:] in ((1, 2), (2, 1)):
            self.trace.transposes.append(at)
        return func(*args, **kwargs)

    def _hides(self, at: str, hidden: Tensor | None) -> None:
        """Writes down what is hidden of scores (..., query, key)."""
        if hidden is None or hidden.dim() < 3 or min(hidden.shape[-2:]) < 2:
            return
        to_the_end = bool((hidden[..., 1:] | ~hidden[..., :-1]).all())
        more = hidden.sum(-1).diff(dim=-1)
        future = to_the_end and bool((more <= 0).all()) and bool((more < 0).any())
        padding = bool(hidden.any()) and not bool(hidden.all()) and bool((hidden == hidden[..., :1, :]).all())
        if future or padding:
            self.trace.hidings.append(Hiding(at, future, padding))


def _attention(
    at: str, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
) -> Attention:
    masked = attn_mask is not None
    causal = bool(kwargs.get("is_causal", len(args) > 1 and args[1]))
    if attn_mask is not None and query.shape[-2] == key.shape[-2] > 1:
        hidden = hides(attn_mask)
        future = torch.ones(hidden.shape[-2:], dtype=torch.bool, device=hidden.device).triu(1)
        whole = hidden.shape[-2:] == (query.shape[-2], key.shape[-2])
        same = hidden == hidden[..., -1:, :]  # of the past all tokens see the same: no windows, no documents
        causal = whole and bool(hidden[..., future].all()) and bool(same[..., ~future].all())
    return Attention(at, tuple(query.shape), masked, causal)


def hides(mask: Tensor) -> Tensor:
    """Where a mask of torch's attention lets nothing through: False, or far below zero."""
    return ~mask if mask.dtype == torch.bool else mask < LOW


def hidden_keys(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
) -> Tensor | None:
    """What a call of torch's attention hides (..., query, key); None for nothing."""
    shape = (*query.shape[:-1], key.shape[-2])
    if attn_mask is not None:
        return hides(attn_mask).broadcast_to(shape)
    if not kwargs.get("is_causal", len(args) > 1 and args[1]):
        return None
    return torch.ones(shape, dtype=torch.bool, device=query.device).triu(1)


def filled_scores(scores: Tensor, mask: Tensor, value: Any) -> Tensor | None:
    """What is hidden of scores by filling in a number far below zero; None where another one is filled in."""
    return mask.bool().broadcast_to(scores.shape) if float(value) < LOW else None


def pair_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]] | None:
    """Output, target and the rest of the arguments of a loss function; None where they are not tensors."""
    rest = dict(kwargs)
    given = list(args)
    output = given.pop(0) if given else rest.pop("input", None)
    target = given.pop(0) if given else rest.pop("target", None)
    if given:
        rest["weight"] = given[0]  # the third argument of all that have one
    return (output, target, rest) if isinstance(output, Tensor) and isinstance(target, Tensor) else None


def trace_of(program: Program, seed: int) -> Trace:
    """One call of a program's loss in training mode. The random generator is where it was afterwards."""
    kept = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        model, batch = program.model(), program.batch()
        trace = _traced(program, model, batch)
        first, second = evaluated(program.loss, model, batch)
        trace.repeats = first == second
        trace.more = _traced_with_one_more(program, batch, trace.rows, seed)
        return trace
    finally:
        torch.set_rng_state(kept)


def _traced_with_one_more(program: Program, batch: Any, rows: int, seed: int) -> Trace | None:
    if rows < 2:
        return None

    def longer(x: Any) -> Any:
        return torch.cat([x, x[:1]]) if isinstance(x, Tensor) and x.dim() and len(x) == rows else x

    torch.manual_seed(seed)
    try:
        return _traced(program, program.model(), _pytree.tree_map(longer, batch))
    except Exception:  # a model of just so many samples, or a batch whose other parts do not grow
        return None


def _traced(program: Program, model: nn.Module, batch: Any) -> Trace:
    trace = Trace()
    model.train()
    known = {id(tensor): path for path, tensor in leaves(batch)}
    lengths = [len(tensor) for _, tensor in leaves(batch) if tensor.dim()]
    trace.rows = max(lengths, key=lengths.count, default=0)
    inside: list[str] = []
    seen: set[str] = set()
    handles = []
    for name, module in model.named_modules():
        handles.append(
            module.register_forward_pre_hook(
                _entering(name, inside, known if not name else {}, trace), with_kwargs=True
            )
        )
        handles.append(module.register_forward_hook(_leaving(name, inside, seen, trace), with_kwargs=True))
    try:
        with _Listening(trace, inside):
            program.loss(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return trace


def evaluated(loss: Callable[[nn.Module, Any], Tensor], model: nn.Module, batch: Any) -> tuple[float, float]:
    """The loss in evaluation, twice; NaN where there is none."""
    model.eval()
    try:
        with torch.no_grad():
            return float(loss(model, batch)), float(loss(model, batch))
    except Exception:  # a loss that differentiates on its own, or a model that gives none in evaluation
        return math.nan, math.nan
    finally:
        model.train()


def is_mask(keyword: str, value: Any, others: Iterable[Any]) -> bool:
    """Whether a keyword and its value are those of a mask that hides some of the tokens of another argument."""
    if "mask" not in keyword or not isinstance(value, Tensor) or value.dim() != 2:
        return False
    if not any(isinstance(each, Tensor) and each is not value and each.shape[:2] == value.shape for each in others):
        return False
    return sorted(set(value.flatten().tolist())) == [0, 1]


def _entering(name: str, inside: list[str], known: dict[int, str], trace: Trace) -> Any:
    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        inside.append(name)
        for tensor in _pytree.tree_leaves((args, kwargs)) if known else ():
            if id(tensor) in known and known[id(tensor)] not in trace.inputs:
                trace.inputs.append(known[id(tensor)])
        others = [*args, *kwargs.values()]
        trace.masks += [each for each, value in kwargs.items() if known and is_mask(each, value, others)]

    return enter


def _leaving(name: str, inside: list[str], seen: set[str], trace: Trace) -> Any:
    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        inside.pop()
        if name in seen:
            return
        seen.add(name)
        first = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
        is_float = isinstance(output, Tensor) and output.is_floating_point()
        trace.modules.append(
            ModuleCall(
                name,
                type(module).__name__,
                None if first is None or not first.is_floating_point() else tuple(first.shape),
                tuple(output.shape) if is_float else None,
                bool(is_float and output.requires_grad),
                sum(each.requires_grad for each in module.parameters(recurse=False)),
                sum(each.requires_grad for each in module.parameters()),
            )
        )

    return leave
