"""Held-out mistakes inside of models, the seventh set: what a layer leaves out, detaches, or brings into another order.

From trackers: a last layer whose output is not what is returned (mlcommons/GaNDLF#168), a norm over one element
(pytorch/pytorch#108956, pytorch/pytorch#19250), a state whose axes are (layer, sample) and are viewed otherwise
(timbmg/Sentence-VAE#15), tokens that are shifted by roll (verl-project/verl#6475, JIA-Lab-research/LongLoRA#90), ``~``
of a mask of whole numbers (pytorch/pytorch#24180, scikit-learn-contrib/skope-rules#38), running statistics that move in
evaluation (rwth-i6/returnn#1625, wavefrontshaping/complexPyTorch#6), a lambda that is bound to the last one of a loop
(ml-explore/mlx-lm#976), states, keys and values that are detached as for a cache
(lucidrains/block-recurrent-transformer-pytorch#4, unslothai/unsloth-zoo#1275), ``1 // root`` for a scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.operators.architecture import batch_norms, choose, of_type
from benchmarks.wild.operators.fifth_layers import _in_a_row
from benchmarks.wild.operators.fifth_losses import _classified
from benchmarks.wild.operators.losses import first_call
from benchmarks.wild.operators.masks import exchange_hidden
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Exchanged, Forward, exchange_in, on_output, override
from benchmarks.wild.operators.targets import told_tokens
from benchmarks.wild.operators.trace import ATTENTION, ModuleCall
from benchmarks.wild.operators.unseen_layers import LAYERS, _features, plain_layers

SIGMOID: tuple[Callable[..., Tensor], ...] = (torch.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid)


def _with(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a linear layer or a convolution makes of other weights."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    return layer._conv_forward(x, weight, bias)  # type: ignore[no-any-return]


@operator("forgotten", "unused", "no-gradient", "zero-gradient")
def bias_not_handed_over(s: Setup, at: Site) -> str | None:
    """A layer that is written out calls ``F.linear(x, self.weight)``: it has a bias, which is never added."""
    names = plain_layers(s, at, bias=True)
    if not names:
        return None
    name = at.choose.choice(names)

    def forward(inner: Forward, x: Tensor) -> Tensor:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        return _with(layer, x, layer.weight, None)

    override(s.model.get_submodule(name), forward)
    return f"{name}: F.linear(x, self.weight) without self.bias"


def _runs(at: Site, name: str, forward: Callable[..., Any]) -> bool:
    """Whether a program has a loss with a gradient after a part of it was changed."""
    model, batch = at.program.model().train(), at.program.batch()
    override(model.get_submodule(name), forward)
    try:
        return bool(at.program.loss(model, batch).requires_grad)
    except Exception:  # what follows wants another shape
        return False


@operator("misplaced", "unused", "no-gradient", "zero-gradient")
def last_layer_not_returned(s: Setup, at: Site) -> str | None:
    """``logits = head(x); return x``: the loss takes the features for scores of more classes, and the head is idle."""
    number = _classified(at)
    if number is None:
        return None

    def fits(call: ModuleCall) -> bool:
        came, went = call.came or (), call.went or ()
        axis = 1 if "Conv" in call.module else -1
        wide = len(came) == len(went) > 1 and came[axis] > went[axis] and came[2:-1] == went[2:-1]
        return wide and went[axis] == at.trace.losses[number].output[1]

    names = set(plain_layers(s, at))
    places = [call.name for call in at.trace.places(fits) if call.name in names]

    def forward(inner: Forward, x: Tensor) -> Tensor:
        inner(x)
        return x

    if not places or not _runs(at, places[-1], forward):
        return None
    override(s.model.get_submodule(places[-1]), forward)
    return f"{places[-1]}: its output is not returned"


@operator("detached", "no-gradient", "wrong-backward", "tie-lost", "zero-gradient", needs="tied")
def tied_use_detached(s: Setup, at: Site) -> str | None:
    """A layer that shares its weight with an embedding reads it detached: one of the two uses has no gradient."""
    every = [id(each) for _, each in s.model.named_parameters(remove_duplicate=False)]

    def fits(call: ModuleCall) -> bool:
        layer: Any = s.model.get_submodule(call.name)
        weight = layer.weight if type(layer) in LAYERS else None
        return isinstance(weight, nn.Parameter) and weight.requires_grad and every.count(id(weight)) > 1

    if (name := choose(at, at.trace.places(fits))) is None:
        return None

    def forward(inner: Forward, x: Tensor) -> Tensor:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        return _with(layer, x, layer.weight.detach(), layer.bias)

    override(s.model.get_submodule(name), forward)
    return f"{name}: F.linear(x, embed.weight.detach())"


def _attending(at: Site) -> list[str]:
    """The modules that call torch's attention over more than one token."""
    return sorted({each.module for each in at.trace.attentions if each.query[-2] > 1})


@operator("detached", "no-gradient", "wrong-backward", "zero-gradient")
def keys_and_values_detached(s: Setup, at: Site) -> str | None:
    """Keys and values are detached, as for a cache, in training too: what they are made of learns nothing."""
    if not (places := _attending(at)):
        return None
    name = at.choose.choice(places)

    def cached(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return func(query, key.detach(), value.detach(), *args, **kwargs)  # type: ignore[no-any-return]

    exchange_in(s.model.get_submodule(name), ATTENTION, cached)
    return f"{name or 'the model'}: cache = k.detach(), v.detach()"


@operator("dtype", "zero-gradient", "no-gradient", "input-ignored", "unused")
def scale_in_whole_numbers(s: Setup, at: Site) -> str | None:
    """The scores are multiplied by ``1 // root``, which is 0: an attention is a mean, whatever is asked for."""
    if not (places := _attending(at)):
        return None
    name = at.choose.choice(places)

    def scaled(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        return func(*args, **{**kwargs, "scale": 0.0})  # type: ignore[no-any-return]

    exchange_in(s.model.get_submodule(name), ATTENTION, scaled)
    return f"{name or 'the model'}: scale=1 // root"


@operator("axis", "batch-mixing")
def flattened_in_wrong_order(s: Setup, at: Site) -> str | None:
    """Windows, frames or tokens are (sample, window), and are viewed as (window, sample): they go on as another's."""
    names, rows = at.trace.of_samples(), at.trace.rows
    if rows < 2 or at.program.traits & {"graph", "points"}:
        return None

    def fits(call: ModuleCall) -> bool:
        return call.graph and call.below > 0 and call.name in names and (call.went or (0,))[0] > rows

    if (name := choose(at, at.trace.places(fits))) is None:
        return None
    on_output(
        s.model.get_submodule(name),
        lambda out: out.reshape(rows, len(out) // rows, *out.shape[1:]).transpose(0, 1).reshape(out.shape),
    )
    return f"{name}: out.view(windows, {rows}, ...)"


@operator("axis", "constant-output", "input-ignored", "zero-gradient", "no-gradient")
def norm_over_one_element(s: Setup, at: Site) -> str | None:
    """``nn.LayerNorm(1)`` of features in an axis of their own: each is its own mean, and zero is all that is left."""
    names = [name for name in of_type(s, at, nn.LayerNorm) if len(s.model.get_submodule(name).normalized_shape) == 1]  # type: ignore[arg-type]
    if not names:
        return None
    name = at.choose.choice(names)

    def forward(inner: Forward, x: Tensor) -> Tensor:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        x = F.layer_norm(x[..., None], (1,), eps=layer.eps)[..., 0]
        x = x if layer.weight is None else x * layer.weight
        return x if layer.bias is None else x + layer.bias

    override(s.model.get_submodule(name), forward)
    return f"{name}: a norm over an axis of one element"


@operator("mask", "input-ignored", "nonfinite-output", "nonfinite-loss", "constant-output", "zero-gradient")
def whole_number_mask_negated(s: Setup, at: Site) -> str | None:
    """``~mask`` of a mask of whole numbers is -1 and -2, and both are true: an attention has nothing to see."""
    places = sorted({each.module for each in at.trace.hidings if each.padding or each.future})
    if not places:
        return None
    name = at.choose.choice(places)
    exchange_hidden(s.model.get_submodule(name), torch.ones_like)
    return f"{name or 'the model'}: ~mask of whole numbers"


def _told_steps(at: Site, call: ModuleCall) -> bool:
    """Whether features (sample, token, channel) have a loss for each token."""
    rows, length = (call.went or (0, 0))[:2]
    number = first_call(at)
    shape = at.trace.losses[number].output if number is not None else ()
    flat = len(shape) == 2 and shape[0] in (rows * length, rows * (length - 1))
    return flat or (len(shape) == 3 and shape[0] == rows and {length, length - 1} & {*shape[1:]} != set())


@operator("rows", "label-conflict", "loss-floor", "constant-output", "leak", "input-ignored", "target-mismatch")
def last_step_for_all(s: Setup, at: Site) -> str | None:
    """The last state is taken for all of them, ``h[:, -1:].expand_as(h)``: all tokens have the same features."""
    places = [call for call in _features(at) if len(call.went or ()) == 3 and call.went and call.went[1] > 2]
    places = [call for call in places if call.went and call.went[0] == at.trace.rows and _told_steps(at, call)]
    if not places:
        return None
    on_output(s.model.get_submodule(places[-1].name), lambda out: out[:, -1:].expand_as(out))
    return f"{places[-1].name}: h[:, -1:] for all tokens"


def sigmoids(at: Site) -> list[tuple[str, str | None]]:
    """The parts that call a sigmoid of features, and the layer that has just returned what it is called with."""
    model, batch, inside = at.program.model().train(), at.program.batch(), [""]
    made: dict[int, tuple[str, Tensor]] = {}
    found: list[tuple[str, str | None]] = []

    def enter(name: str) -> Any:
        return lambda module, args: inside.append(name)

    def leave(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            inside.pop()
            if isinstance(output, Tensor) and type(module) in LAYERS:
                made[id(output)] = name, output  # kept, so that no other one gets its number

        return hook

    def seen(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.requires_grad and x.dim() > 1 and inside[-1]:
            found.append((inside[-1], made[id(x)][0] if id(x) in made else None))
        return func(x, *args, **kwargs)  # type: ignore[no-any-return]

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter(name))
        module.register_forward_hook(leave(name))
    with Exchanged(SIGMOID, seen):
        at.program.loss(model, batch)
    return sorted(set(found), key=str)


@operator("dtype", "no-gradient", "zero-gradient", "unused")
def gate_made_boolean(s: Setup, at: Site) -> str | None:
    """A gate is ``sigmoid(x) > 0.5``, without a gradient: what it is made of learns nothing."""
    places = sorted({name for name, _ in sigmoids(at)})

    def hard(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        with Exchanged(SIGMOID, lambda func, x: (func(x) > 0.5).to(x.dtype)):
            return inner(*args, **kwargs)

    at.choose.shuffle(places)
    for name in places[:3]:
        if _runs(at, name, hard):
            override(s.model.get_submodule(name), hard)
            return f"{name}: (sigmoid(x) > 0.5).float()"
    return None


@operator("order", "leak", needs="causal")
def first_token_sees_the_last(s: Setup, at: Site) -> str | None:
    """Half of the channels come from the token before by ``roll(1, dims=1)``: for the first one that is the last."""
    if told_tokens(at) is None:
        return None
    places = [call for call in _features(at) if len(call.went or ()) == 3 and call.went and call.went[2] > 1]
    places = [call for call in places if call.went and call.went[0] == at.trace.rows and call.went[1] > 2]
    if (name := choose(at, places)) is None:
        return None

    def rolled(out: Tensor) -> Tensor:
        half = out.shape[-1] // 2
        return torch.cat([out[..., :half].roll(1, 1), out[..., half:]], -1)

    on_output(s.model.get_submodule(name), rolled)
    return f"{name}: x.roll(1, dims=1)"


@operator("place", "unused", "no-gradient", "zero-gradient")
def last_one_bound_for_all(s: Setup, at: Site) -> str | None:
    """``calls.append(lambda x: layer(x))`` in a loop over layers: each of them calls the last layer."""
    rows = _in_a_row(s, at)
    if not rows:
        return None
    *others, last = at.choose.choice(rows)
    for name in others:
        part = s.model.get_submodule(name)
        part.__dict__["bound"] = s.model.get_submodule(last)
        override(part, lambda inner, *args, **kwargs: inner.args[0].__dict__["bound"](*args, **kwargs))
    return f"{others[0]} and others: {last} is called in their place"


@operator("mode", "drift", "stochastic", "mode-gap", "batch-mixing", needs="batchnorm")
def statistics_move_in_evaluation(s: Setup, at: Site) -> str | None:
    """A batch norm of its own updates its running statistics without a look at self.training: in evaluation too."""
    layers: dict[str, Any] = {name: s.model.get_submodule(name) for name in batch_norms(s, at)}
    names = [name for name, each in layers.items() if each.track_running_stats and each.momentum]
    if not names or not at.trace.repeats:
        return None
    name = at.choose.choice(names)

    def forward(inner: Forward, x: Tensor) -> Any:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        if not layer.training:
            with torch.no_grad():
                F.batch_norm(x, layer.running_mean, layer.running_var, training=True, momentum=layer.momentum)
        return inner(x)

    override(s.model.get_submodule(name), forward)
    return f"{name}: running_mean.lerp_() in evaluation too"
