"""Operations worth a note, and what is measured of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pytest_overfit.diagnose.operation import (
    Attention,
    Broadcast,
    Clamped,
    Comparison,
    Drawn,
    Fact,
    FreshTensor,
    HeadMask,
    InPlace,
    Op,
    Rectified,
    Scaled,
    Shape,
    Squashed,
)
from pytest_overfit.diagnose.questions.attention import by_mask, by_weights, mask_of_heads, mask_of_kernel
from pytest_overfit.diagnose.questions.loss_arguments import adds_target, exchanged_with_target
from pytest_overfit.diagnose.questions.operation_names import (
    ARITHMETIC,
    ATTENTIONS,
    CHOICES,
    CLAMPS,
    CLASSIFIERS,
    COMPARED,
    FRESH,
    GATED,
    LOSSES,
    RANDOM,
    RECTIFIERS,
    SQUASHERS,
    STEPS,
    WRITES,
)
from pytest_overfit.diagnose.questions.overwritten import overwritten
from pytest_overfit.diagnose.questions.rearranged import scrambled, scrambled_sequences
from pytest_overfit.diagnose.questions.targets import origin_of, relabelled
from pytest_overfit.diagnose.questions.tensors import averaged, final_operation, is_real, summed, tensors_in

_NOTED = frozenset().union(
    LOSSES,
    SQUASHERS,
    RECTIFIERS,
    GATED,
    STEPS,
    CHOICES,
    COMPARED,
    CLAMPS,
    RANDOM,
    FRESH,
    ARITHMETIC,
    ATTENTIONS,
    WRITES,
)
LABELLED = ("cross_entropy", "nll_loss")
SCALING, LEAST_FACTOR = ("mul", "__mul__", "__rmul__", "div", "__truediv__"), 0.1
REARRANGED = {"cross_entropy": scrambled, "nll_loss": scrambled, "ctc_loss": scrambled_sequences}
_MASKS = (("attn_mask", 3), ("is_causal", 5))


class Traced(Protocol):
    """What an operation is measured against: the step in which it runs."""

    batch: Any
    keys: dict[int, str]  # of the tensors of the batch, by their id
    samples: int | None
    outputs: list[Tensor]  # of the last call of the model
    drawn: list[Tensor]  # random numbers so far

    @property
    def in_model(self) -> bool:
        """Whether a module of the model is running."""

    @property
    def padding(self) -> Tensor | None:
        """What of the batch is padding."""


@dataclass(frozen=True)
class Called:
    """One call of a torch function: what it was given, what it returned, and where."""

    name: str
    region: str
    args: Any
    kwargs: Any
    out: Any
    line: Callable[[], str]

    @property
    def tensors(self) -> list[Tensor]:
        return list(tensors_in([*self.args, *self.kwargs.values()], depth=2))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Of the tensors that were given, then of the result."""
        out = (tuple(self.out.shape),) if isinstance(self.out, Tensor) else ()
        return (*(tuple(t.shape) for t in self.tensors), *out)

    @property
    def source(self) -> Tensor | None:
        """The first argument, where it is a tensor."""
        return self.args[0] if self.args and isinstance(self.args[0], Tensor) else None

    def op(self, fact: Fact | None = None, *, name: str = "", made_of: Tensor | None = None) -> Op:
        """The operation as it is kept."""
        final = "" if made_of is None else final_operation(made_of)
        return Op(name or self.name, self.region, self.line(), self.shapes, final, fact)


def is_noted(name: str) -> bool:
    return name in _NOTED or name.endswith("!")


def describe(step: Traced, call: Called) -> Op | None:
    """What is worth keeping of an operation; None where nothing is."""
    if (name := call.name).endswith("!"):
        return call.op(InPlace(name[:-1], step.keys.get(id(call.args[0]), "")), name="in_place")
    if name in LOSSES:
        return _loss(step, call)
    if name in ARITHMETIC:
        return _arithmetic(step, call)
    if name in SQUASHERS:
        return _squasher(step, call)
    if name in RECTIFIERS or name in GATED:
        return _rectifier(call)
    if name in CLAMPS:
        return _clamp(call)
    if name in COMPARED:
        drawn = any(call.source is each for each in step.drawn)
        fact = Drawn("a comparison of random numbers", math.nan, of_input=False, gates=True)
        return call.op(fact, name="random") if drawn else None
    if name in STEPS | CHOICES:
        return None if call.source is None or not call.source.requires_grad else call.op(made_of=call.source)
    if name in RANDOM:
        return _random(step, call)
    if name in ATTENTIONS:
        return _attention(step, call)
    if name in WRITES:
        lost = overwritten(name, call.args, call.kwargs, call.out)
        return None if lost is None else call.op(lost)
    return _fresh(step, call) if name in FRESH else None


def _random(step: Traced, call: Called) -> Op | None:
    args, kwargs, given = call.args, call.kwargs, call.tensors
    training = kwargs.get("training", args[2] if len(args) > 2 and isinstance(args[2], bool) else True)
    share = kwargs.get("p", args[1] if len(args) > 1 and isinstance(args[1], float) else math.nan)
    drops = "dropout" in call.name
    if drops and (not training or share == 0):
        return None
    if isinstance(call.out, Tensor) and not drops:
        step.drawn.append(call.out)
    of_input = bool(given) and id(given[0]) in step.keys
    gates = drops or call.name.startswith("bernoulli")
    return call.op(Drawn(call.name, float(share) if drops else math.nan, of_input, gates), name="random")


def _fresh(step: Traced, call: Called) -> Op | None:
    """A tensor made anew in the place of an input."""
    key = step.keys.get(id(call.source), "")
    return call.op(FreshTensor(call.name, key), name="fresh") if key else None


def _loss(step: Traced, call: Called) -> Op | None:
    given, name = call.tensors, call.name
    if len(given) < 2:
        return None
    predicted, target = (each.detach() for each in given[:2])
    origin, turned = origin_of(step.batch, target)
    fact = Comparison(
        given[0].requires_grad,
        origin=origin,
        turned=turned,
        smoothing=float(call.kwargs.get("label_smoothing", 0.0) or 0.0),
        summed=call.kwargs.get("reduction") == "sum",
        averaged=call.kwargs.get("reduction", "mean") == "mean",
        scrambled=REARRANGED[name](given[0]) if name in REARRANGED else "",
        adds_target=adds_target(step.outputs, predicted, target),
        exchanged=exchanged_with_target(name, call.args, call.kwargs),
    )
    if is_real(predicted) and predicted.numel():
        fact = replace(fact, low=float(predicted.min()), high=float(predicted.max()))
    if name in CLASSIFIERS and predicted.dim() >= 1 and predicted.numel():
        axis = -1 if name in ("ctc_loss", "kl_div") else 1 if predicted.dim() > 1 else 0
        fact = replace(
            fact,
            sum_error=float((predicted.double().sum(axis) - 1).abs().max()),
            log_sum_error=float(predicted.double().logsumexp(axis).abs().max()),
            classes=predicted.shape[axis],
        )
    if target.numel():
        fact = replace(fact, target_low=float(target.min()), target_high=float(target.max()))
    if target.numel() and not is_real(target):
        ignored = int(call.kwargs.get("ignore_index", -100))
        fact = replace(fact, supervised=int((target != ignored).sum()), ignored=ignored)
        if not origin and name in LABELLED:
            fact = replace(fact, relabelled=relabelled(step.batch, target, predicted, ignored))
    return call.op(fact, made_of=given[0])


def _arithmetic(step: Traced, call: Called) -> Op | None:
    """A difference of a prediction and a target, or two shapes that broadcast both ways."""
    args, out = call.args, call.out
    if len(args) < 2 or not isinstance(out, Tensor):
        return None
    if any(any(a is each for each in step.drawn) for a in args[:2]):
        if not out.requires_grad:
            step.drawn.append(out)  # in another size: chance all the same
        elif "add" in call.name and step.in_model:
            return call.op(Drawn("noise", math.nan, of_input=False, added=True), name="random")
    a, b = args[:2]
    if call.name in SCALING and not step.in_model and (scaled := _scaled(call, a, b)) is not None:
        return call.op(scaled, made_of=a)
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return None
    if out.numel() > max(a.numel(), b.numel()) > 1 and min(a.numel(), b.numel()) > 1:
        made = {t.untyped_storage().data_ptr() for t in step.outputs}  # by the model, detached or not
        gradients = sum(t.requires_grad or t.untyped_storage().data_ptr() in made for t in (a, b))
        same = a.numel() == b.numel() and not torch.equal(a.reshape(-1), b.reshape(-1).to(a))  # else pairs are meant
        of_samples = a.numel() == step.samples
        return call.op(Broadcast(call.name, same, a.dim() != b.dim(), gradients, of_samples), name="broadcast")
    if step.in_model or "sub" not in call.name or a.shape != b.shape or a.requires_grad == b.requires_grad:
        return None
    predicted, target = (a, b.detach()) if a.requires_grad else (b, a.detach())
    if predicted.numel() < 2 or not is_real(target):
        return None
    plain, (origin, turned) = predicted.detach(), origin_of(step.batch, target)
    fact = Comparison(
        differentiable=True,
        low=float(plain.min()),
        high=float(plain.max()),
        target_low=float(target.min()),
        target_high=float(target.max()),
        same=plain.shape == target.shape and bool(torch.equal(plain, target)),
        adds_target=adds_target(step.outputs, plain, target),
        origin=origin,
        turned=turned,
    )
    return call.op(fact, name="difference", made_of=predicted)


def _scaled(call: Called, a: Any, b: Any) -> Scaled | None:
    """What has a gradient times, or divided by, a number that is far from 1."""
    number = b if isinstance(b, (int, float)) or (isinstance(b, Tensor) and not b.dim() and not b.requires_grad) else 0
    if not (isinstance(a, Tensor) and a.requires_grad and number):
        return None
    factor = 1 / float(number) if "div" in call.name else float(number)
    if LEAST_FACTOR < abs(factor) < 1 / LEAST_FACTOR:
        return None
    whole = () if a.dim() or a.grad_fn is None else (factor * summed(a.grad_fn), float(call.out), averaged(a.grad_fn))
    return Scaled(factor, *whole)


def _squasher(step: Traced, call: Called) -> Op | None:
    name, out, source = call.name, call.out, call.source
    if not isinstance(out, Tensor) or not is_real(out) or not out.numel():
        return None
    value = out.detach().double()
    if name == "tanh":
        fact = Squashed(float((value.abs() > 0.9995).double().mean()))
    elif name == "sigmoid":
        fact = Squashed(float(((value < 5e-4) | (value > 1 - 5e-4)).double().mean()))
    else:
        sizes = (a for a in call.args[1:] if isinstance(a, int) and not isinstance(a, bool))
        dim = call.kwargs.get("dim", next(sizes, None))
        axis = (-1 if dim is None else int(dim)) % out.dim() if out.dim() else 0
        probability = value.exp() if name == "log_softmax" else value
        last = name == "softmax" and axis == out.dim() - 1 > 1
        fact = Squashed(
            float((probability.amax(axis) > 0.999).double().mean()),
            length=out.shape[axis] if out.dim() else 1,
            ranks=out.dim(),
            over_samples=axis == 0 and out.dim() > 1 and out.shape[0] == step.samples,
            reads=by_weights(out, source, step.padding) if last else None,
        )
    if source is not None and source.numel():
        fact = replace(fact, low=float(source.detach().min()), high=float(source.detach().max()))
    return call.op(fact, made_of=source)


def _rectifier(call: Called) -> Op | None:
    if not isinstance(call.out, Tensor) or call.out.numel() < 2:
        return None
    fires = call.out.detach().abs() > (0 if call.name in RECTIFIERS else 1e-6)
    axis = 1 if fires.dim() in (4, 5) else fires.dim() - 1
    units = fires.movedim(axis, 0).reshape(fires.shape[axis], -1).any(1)
    return call.op(
        Rectified(float((~units).double().mean()), len(units)), name="relu" if call.name in RECTIFIERS else call.name
    )


def _clamp(call: Called) -> Op | None:
    source, out = call.source, call.out
    if source is None or not isinstance(out, Tensor) or not source.requires_grad or source.shape != out.shape:
        return None
    given, made = source.detach(), out.detach()
    fact = Clamped(
        share=float((given != made).double().mean()) if given.numel() else 0.0,
        scalar=given.numel() == 1,
        low=float(given.min()),
        high=float(given.max()),
        clamped_low=float(made.min()),
        clamped_high=float(made.max()),
    )
    return call.op(fact, name="clamp", made_of=source)


def _attention(step: Traced, call: Called) -> Op | None:
    args, kwargs = call.args, call.kwargs
    if call.name == "multi_head_attention_forward":  # its logits stay inside: of them only the mask is known
        mask = mask_of_heads(args[0], args[1], kwargs.get("attn_mask"), kwargs.get("key_padding_mask"))
        training = kwargs.get("training", args[13] if len(args) > 13 else True)
        drops = kwargs.get("dropout_p", args[10] if len(args) > 10 else 0.0) if training else 0.0
        reads = by_mask(mask, step.padding, len(args[0]), len(args[1]))
        return call.op(HeadMask(reads, float(drops)), name="heads") if reads is not None or drops else None
    query, key = args[0].detach().double(), args[1].detach().double()
    if query.shape[-2] * key.shape[-2] * max(1, query[..., 0, 0].numel()) > 500_000:
        return None
    scale = kwargs.get("scale")
    logits = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    mask, causal = (kwargs.get(name, args[at] if len(args) > at else None) for name, at in _MASKS)
    open_ = mask_of_kernel(query.shape[-2], key.shape[-2], mask, bool(causal), query.device)
    fact = Attention(
        bound=float((logits.softmax(-1).amax(-1) > 0.999).double().mean()) if key.shape[-2] > 1 else 0.0,
        deviation=float(logits.std()) if logits.numel() > 1 else 0.0,
        keys=key.shape[-2],
        reads=by_mask(open_, step.padding, query.shape[-2], key.shape[-2]),
        dropout=float(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)),
    )
    return call.op(fact, name="attention")
