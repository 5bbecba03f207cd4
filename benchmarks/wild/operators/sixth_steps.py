"""Held-out mistakes of order, of train steps and of terms, the sixth set.

From trackers: predictions of several processes that are joined one process after the other (open-mmlab/mmpretrain#173),
a direction of a sequence that is turned round (keras-team/keras#1703, keras-team/keras#3281) so that a model is not
causal (raminmh/liquid-s4#17), an embedding that sorts its ids (pytorch/pytorch#2413), a term that the model has added
already (microsoft/protein-frame-flow#23), gradients that are clipped each by itself (carpedm20/MemN2N-tensorflow#19,
huggingface/transformers#614), a term that is summed beside a mean (wiseodd/generative-models#40, dropreg/R-Drop#24),
weights that are put back before the step in the right code, and behind it in this one (jiecaoyu/XNOR-Net-PyTorch#49), a
batch norm behind the last layer (yaoing/DAN#14, Lab41/attalos#89).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree

from benchmarks.wild.operators.fifth_steps import _first_gradients
from benchmarks.wild.operators.loop import STEP
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Exchanged, Forward, exchange_loss, override, train_step
from benchmarks.wild.operators.targets import told_tokens
from benchmarks.wild.operators.third_losses import _whole
from benchmarks.wild.operators.trace import PAIRS, ModuleCall
from benchmarks.wild.operators.unseen_layers import plain_layers
from benchmarks.wild.operators.unseen_steps import _gradients

SHARE = 0.1  # of the largest norm among the gradients


@operator("order", "mode-gap", "target-mismatch")
def processes_joined_in_evaluation(s: Setup, at: Site) -> str | None:
    """Two processes evaluate every second sample each, and their outputs are joined one after the other."""
    whole = _whole(at)
    if whole is None or not whole.went or whole.went[0] != at.trace.rows or at.trace.rows < 3:
        return None

    def joined(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        out = inner(*args, **kwargs)
        return out if inner.args[0].training else torch.cat([out[0::2], out[1::2]])  # type: ignore[attr-defined]

    override(s.model, joined)
    return "the model: cat([out[0::2], out[1::2]]) in evaluation"


def _turned(nest: Any, shape: tuple[int, ...]) -> Any:
    """Features of this shape, (sample, token, channel), from the last token to the first."""

    def turn(each: Any) -> Any:
        fits = isinstance(each, Tensor) and each.is_floating_point() and tuple(each.shape[:2]) == shape[:2]
        return each.flip(1) if fits and each.dim() == 3 else each

    return _pytree.tree_map(turn, nest)


@operator("order", "leak", needs="causal")
def layer_reads_backwards(s: Setup, at: Site) -> str | None:
    """A causal layer reads the tokens from the last to the first, as one of two directions: it sees what is to come."""
    if told_tokens(at) is None:
        return None
    hiding = {each.module for each in at.trace.hidings if each.future} | {
        each.module for each in at.trace.attentions if each.causal
    }

    def fits(call: ModuleCall) -> bool:
        layer = s.model.get_submodule(call.name)
        if call.came is None or len(call.came) != 3 or call.came[0] != at.trace.rows or call.came[1] < 3:
            return False
        recurrent = isinstance(layer, nn.RNNBase) and layer.batch_first and not layer.bidirectional
        return recurrent or any(name == call.name or name.startswith(f"{call.name}.") for name in hiding)

    places = at.trace.places(fits)
    if not places:
        return None
    call = at.choose.choice(places)
    shape = call.came or ()

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _turned((args, kwargs), shape)
        return _turned(inner(*args, **kwargs), shape)

    override(s.model.get_submodule(call.name), forward)
    return f"{call.name}: f(x.flip(1)).flip(1)"


@operator("order", "batch-mixing", "input-ignored", "leak", "target-mismatch")
def ids_sorted_by_embedding(s: Setup, at: Site) -> str | None:
    """An embedding looks up its ids sorted, as ``unique`` returns them, and nobody puts them back in their order."""
    found: list[str] = []

    def seen(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            ids = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
            if ids is not None and not torch.equal(ids.flatten(), ids.flatten().sort().values):
                found.append(name)

        return hook

    model = at.program.model().train()
    for name, module in model.named_modules():
        if name and type(module) is nn.Embedding:
            module.register_forward_pre_hook(seen(name), with_kwargs=True)
    at.program.loss(model, at.program.batch())
    if not found:
        return None
    name = at.choose.choice(sorted(set(found)))
    override(s.model.get_submodule(name), lambda inner, ids: inner(ids.flatten().sort().values.view_as(ids)))
    return f"{name}: embedding(ids.sort())"


def _last_term(at: Site) -> int | None:
    """The number of the last of several terms with a gradient."""
    terms = [number for number, call in enumerate(at.trace.losses) if call.grad]
    return terms[-1] if len(terms) > 1 else None


@operator("doubled", "wrong-backward", "term-weight", "loss-scale", needs="terms")
def term_of_model_added_again(s: Setup, at: Site) -> str | None:
    """The loss has a term of the model's own in it, and ``(loss + term).backward()`` adds it once more."""
    if (number := _last_term(at)) is None:
        return None

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        terms: list[Tensor] = []

        def kept(func: Any, *args: Any, **kwargs: Any) -> Tensor:
            terms.append(func(*args, **kwargs))
            return terms[-1]

        optimizer.zero_grad()
        with Exchanged(PAIRS, kept, number):
            value = at.program.loss(model, batch)
        (value + terms[0].mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.detach()

    s.step = step
    return f"{STEP}: (loss + term {number}).backward()"


@operator("scale", "term-weight", "loss-scale", "term-missing", "unsupervised", needs="terms")
def term_summed_beside_mean(s: Setup, at: Site) -> str | None:
    """One of several terms is summed over all there is, and the others are means: next to it they count for nothing."""
    number = _last_term(at)
    if number is None or (count := at.trace.losses[number].target.numel()) < 4:
        return None

    def summed(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        value: Tensor = func(out, target, **rest)
        return value * target.numel() if value.dim() == 0 else value

    exchange_loss(s, number, summed)
    return f"the loss: term {number} is the sum over {count}"


@operator("scale", "grad-clip", "wrong-backward")
def clipped_each_by_itself(s: Setup, at: Site) -> str | None:
    """``clip_grad_norm_(p, limit)`` in a loop over parameters: each gradient has another scale, the sum another way."""
    norms = [float(each.abs().square().sum().sqrt()) for each in _first_gradients(at).values()]
    if len(norms) < 2 or not (limit := SHARE * max(norms)):
        return None

    def update(optimizer: Optimizer) -> None:
        for each in _gradients(optimizer):
            each.mul_(limit / max(limit, float(each.abs().square().sum().sqrt())))
        optimizer.step()

    s.step = train_step(at.program.loss, update=update)
    return f"{STEP}: for p in parameters: clip_grad_norm_(p, {limit:.3g})"


@operator("misplaced", "weights-reset", "no-update", "mode-gap")
def weights_restored_behind_step(s: Setup, at: Site) -> str | None:
    """A layer runs on the signs of its weights, and gets the weights back behind step(): its updates are lost."""
    names = plain_layers(s, at)
    if len(names) < 2:
        return None
    name = f"{at.choose.choice(names[1:])}.weight"

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        weight = model.get_parameter(name)
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.copy_(kept.sign() * kept.abs().mean())
        optimizer.zero_grad()
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            weight.copy_(kept)
        return value.detach()

    s.step = step
    return f"{STEP}: restore() of {name} behind step()"


@operator("misplaced", "batch-mixing", "mode-gap", "output-range", "loss-floor")
def batch_norm_behind_last_layer(s: Setup, at: Site) -> str | None:
    """A batch norm follows the last layer: what is told of a sample is relative to the others of its batch."""
    whole = _whole(at)
    shape = whole.went if whole is not None else None
    if shape is None or len(shape) not in (2, 4) or shape[0] != at.trace.rows or at.trace.rows < 3:
        return None
    s.model.add_module("norm_behind", (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(shape[1]))

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        model: Any = inner.args[0]  # type: ignore[attr-defined]
        return model.get_submodule("norm_behind")(inner(*args, **kwargs))

    override(s.model, forward)
    return "the model: a batch norm behind its last layer"
