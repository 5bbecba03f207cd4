"""Held-out mistakes inside of a model, the fifth set: its loops, its recurrent states, its positions, its evaluation.

From trackers and forums: a loop whose layers all read what the first one reads (cyclomon/UNSB#29,
google-deepmind/open_spiel#484), a state that is detached in every step, thrown away, or another sample's
(allenai/allenact#77), positions that are the same everywhere (NVIDIA/Megatron-LM#453), a choice of experts that is not
multiplied by its probability (lucidrains/mixture-of-experts#7), a causal mask that the evaluation skips
(facebookresearch/xformers#103), flips of a test-time augmentation that are not taken back, time and batch that change
places by ``view`` (graykode/nlp-tutorial#38, OpenNMT/OpenNMT-py#1521).
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from benchmarks.wild.operators.architecture import choose, of_type
from benchmarks.wild.operators.held_back import _mapped, _mirrored
from benchmarks.wild.operators.losses import first_call
from benchmarks.wild.operators.masks import exchange_hidden
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, exchange_in, on_output, override
from benchmarks.wild.operators.targets import told_tokens
from benchmarks.wild.operators.third_losses import _whole
from benchmarks.wild.operators.trace import SOFTMAX
from benchmarks.wild.operators.unseen_batches import inputs_of_samples
from benchmarks.wild.operators.unseen_layers import _features

ANGLES: tuple[Callable[..., Tensor], ...] = (torch.sin, Tensor.sin, torch.cos, Tensor.cos)
Change = Callable[[Tensor, int], Tensor]  # of a state, and of its axis of samples


def _passed_on(at: Site) -> set[tuple[str, str]]:
    """Pairs of modules, of which the second reads as it is what the first has just returned."""
    model, batch = at.program.model().train(), at.program.batch()
    last: dict[int, tuple[str, Tensor]] = {}
    found: set[tuple[str, str]] = set()

    def before(name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            if args and isinstance(args[0], Tensor) and id(args[0]) in last:
                found.add((last[id(args[0])][0], name))

        return hook

    def behind(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                last[id(output)] = name, output  # kept, so that no other one gets its number

        return hook

    held = [each for each in model.named_modules() if isinstance(each[1], (nn.ModuleList, nn.Sequential))]
    for above, module in held:
        for child, part in module.named_children():
            part.register_forward_pre_hook(before(f"{above}.{child}".lstrip(".")))
            part.register_forward_hook(behind(f"{above}.{child}".lstrip(".")))
    at.program.loss(model, batch)
    return found


def _in_a_row(s: Setup, at: Site) -> list[list[str]]:
    """Layers of one type that a list holds, each of which returns what the next one reads."""
    fits = {call.name: call.went for call in at.trace.places(lambda c: c.graph and c.below > 0 and c.keeps_shape)}
    found, passed = [], _passed_on(at)
    for name, module in s.model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len({type(each) for each in module}) != 1:
            continue
        names = [f"{name}.{child}".lstrip(".") for child, _ in module.named_children()]
        chain = len(names) > 1 and all(each in fits for each in names)
        if chain and all(pair in passed for pair in itertools.pairwise(names)):
            found.append(names)
    return found


@operator("forgotten", "unused", "no-gradient", "zero-gradient")
def loop_reads_first_input(s: Setup, at: Site) -> str | None:
    """``out = layer(x)`` in a loop over layers, for ``x = layer(x)``: what the last one makes of it alone goes on."""
    rows = _in_a_row(s, at)
    if not rows:
        return None
    first, *others = at.choose.choice(rows)
    begin = s.model.get_submodule(first)

    def keep(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        inner.args[0].__dict__["read"] = args[0] if args else None  # type: ignore[attr-defined]
        return inner(*args, **kwargs)

    def again(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        part = inner.args[0]  # type: ignore[attr-defined]
        read = part.__dict__["begin"].__dict__.get("read")
        if part.__dict__["last"]:
            part.__dict__["begin"].__dict__["read"] = None
        return inner(read, *args[1:], **kwargs) if args and read is not None else inner(*args, **kwargs)

    override(begin, keep)
    for name in others:
        part = s.model.get_submodule(name)
        part.__dict__.update(begin=begin, last=name == others[-1])
        override(part, again)
    return f"{first} to {others[-1]}: out = layer(x)"


def _cells(at: Site) -> list[str]:
    """The modules that read what they themselves returned in the call before, behind their input: recurrent cells."""
    model, batch = at.program.model().train(), at.program.batch()
    returned: dict[str, list[Tensor]] = {}
    found: set[str] = set()

    def before(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            state = [each for each in _pytree.tree_leaves((args[1:], kwargs)) if isinstance(each, Tensor)]
            if any(one is other for one in state for other in returned.get(name, [])):
                found.add(name)

        return hook

    def behind(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            returned[name] = [each for each in _pytree.tree_leaves(output) if isinstance(each, Tensor)]

        return hook

    for name, module in model.named_modules():
        if name:
            module.register_forward_pre_hook(before(name), with_kwargs=True)
            module.register_forward_hook(behind(name))
    at.program.loss(model, batch)
    return sorted(found)


def _step_by_step(layer: Any, inner: Forward, x: Tensor, state: Any, change: Change) -> Any:
    """A recurrent layer, called for each moment with what it ended with at the one before, changed."""
    axis, outputs = int(layer.batch_first), []
    for moment in range(x.shape[axis]):
        if moment:
            state = _pytree.tree_map(lambda each: change(each, 1), state)
        out, state = inner(x.narrow(axis, moment, 1), state)
        outputs.append(out)
    return torch.cat(outputs, axis), state


def _between_steps(s: Setup, at: Site, change: Change) -> str | None:
    """A recurrent layer, or a cell that somebody calls in a loop, whose state is changed from step to step."""
    layers = [n for n in of_type(s, at, nn.RNN, nn.GRU, nn.LSTM) if not s.model.get_submodule(n).bidirectional]
    cells = [] if layers else _cells(at)
    if not layers and not cells:
        return None
    name = at.choose.choice(layers or cells)

    def whole(inner: Forward, x: Any, state: Any = None, **kwargs: Any) -> Any:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        if not isinstance(x, Tensor) or x.dim() != 3:
            return inner(x, state, **kwargs)
        return _step_by_step(layer, inner, x, kwargs.get("hx", state), change)

    def single(inner: Forward, x: Any, *state: Any, **kwargs: Any) -> Any:
        cell: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        own = [each() for each in cell.__dict__.get("returned", ())]

        def changed(each: Any) -> Any:
            return change(each, 0) if any(each is other for other in own if other is not None) else each

        out = inner(x, *_pytree.tree_map(changed, state), **_pytree.tree_map(changed, kwargs))
        cell.__dict__["returned"] = [weakref.ref(e) for e in _pytree.tree_leaves(out) if isinstance(e, Tensor)]
        return out

    override(s.model.get_submodule(name), whole if layers else single)
    return name


@operator("detached", "no-gradient", "wrong-backward", "zero-gradient")
def state_detached_in_every_step(s: Setup, at: Site) -> str | None:
    """The state is detached in every step of time, not between chunks of it: nothing learns what to keep in mind."""
    name = _between_steps(s, at, lambda state, axis: state.detach())
    return name and f"{name}: h = h.detach() in the loop over time"


@operator("forgotten", "input-ignored", "zero-gradient", "unused")
def state_thrown_away(s: Setup, at: Site) -> str | None:
    """``out, _ = cell(x[t], h)``: each step begins with a state of zeros, and knows nothing of those before."""
    name = _between_steps(s, at, lambda state, axis: torch.zeros_like(state))
    return name and f"{name}: out, _ = cell(x, h)"


@operator("order", "batch-mixing")
def state_of_another_sample(s: Setup, at: Site) -> str | None:
    """The states are kept in another order than the samples: each one goes on with its neighbour's."""
    if at.trace.rows < 2 or not at.trace.repeats:
        return None
    name = _between_steps(s, at, lambda state, axis: state.roll(1, axis))
    return name and f"{name}: h of the sample before"


def _turns(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A sine or cosine of angles that nobody learns, without them."""
    is_angle = isinstance(x, Tensor) and not x.requires_grad and x.is_floating_point() and x.dim() > 1
    return func(x * 0 if is_angle and bool(x.abs().max() > 0.5) else x, *args, **kwargs)  # type: ignore[no-any-return]


@operator("forgotten", "input-ignored")
def positions_all_zero(s: Setup, at: Site) -> str | None:
    """The angles that stand for positions or timesteps are of position 0 everywhere: the order counts for nothing."""
    found: list[bool] = []
    learnt: list[bool] = []  # an activation is no position

    def seen(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = _turns(func, x, *args, **kwargs)
        found.append(not x.requires_grad and not torch.equal(out, func(x, *args, **kwargs)))
        learnt.append(x.requires_grad)
        return out

    model, batch = at.program.model().train(), at.program.batch()
    exchange_in(model, ANGLES, seen)
    at.program.loss(model, batch)
    if not any(found) or any(learnt):
        return None
    exchange_in(s.model, ANGLES, _turns)
    return "the model: sin(0) and cos(0) for those of the positions"


def _chosen(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A softmax that is one for the most likely, and zero for all others."""
    dim = args[0] if args else kwargs["dim"]
    likely = func(x, *args, **kwargs).detach()
    return torch.zeros_like(likely).scatter(dim, likely.argmax(dim, keepdim=True), 1.0)


def _learns(at: Site, names: Sequence[str]) -> str | None:
    """The first of these modules whose softmax can be a choice, while something else still learns."""
    for name in names:
        torch.manual_seed(0)
        model, batch = at.program.model().train(), at.program.batch()
        exchange_in(model.get_submodule(name), SOFTMAX, _chosen)
        if at.program.loss(model, batch).requires_grad:
            return name
    return None


@operator("dtype", "no-gradient", "zero-gradient", "unused")
def choice_without_its_probability(s: Setup, at: Site) -> str | None:
    """The most likely one is chosen, of experts or of tokens, and not weighed by its probability: no gradient."""
    places = sorted({name for name, shape in at.trace.softmaxes if name and len(shape) > 1 and shape[-1] > 1})
    at.choose.shuffle(places)
    if (name := _learns(at, places)) is None:
        return None
    exchange_in(s.model.get_submodule(name), SOFTMAX, _chosen)
    return f"{name}: one_hot(softmax.argmax())"


@operator("mode", "leak", "mode-gap", needs="causal")
def causal_in_training_alone(s: Setup, at: Site) -> str | None:
    """``is_causal=self.training``: in evaluation the attentions see what is to come."""
    model, places = s.model, sorted({each.module for each in at.trace.hidings if each.future})
    if told_tokens(at) is None or not places:
        return None

    def seen(hidden: Tensor) -> Tensor:
        return hidden if model.training else hidden[..., -1:, :].expand_as(hidden)

    for name in places:
        exchange_hidden(model.get_submodule(name), seen)
    return f"{places[0] or 'the model'} and others: causal in training alone"


@operator("mode", "mode-gap", "target-mismatch")
def flips_not_taken_back(s: Setup, at: Site) -> str | None:
    """Evaluation takes the mean of the outputs for an input and for its mirror image, which it does not flip back."""
    number, whole = first_call(at), _whole(at)
    if number is None or whole is None:
        return None
    told = at.trace.losses[number].target
    found = [(each.shape, axis) for _, each in inputs_of_samples(s, at) if (axis := _mirrored(each, told))]
    if not found:
        return None
    shape, axis = found[0]

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        out = inner(*args, **kwargs)
        if inner.args[0].training:  # type: ignore[attr-defined]
            return out
        args, kwargs = _mapped((args, kwargs), shape, lambda x: x.flip(axis))
        return (out + inner(*args, **kwargs)) / 2

    override(s.model, forward)
    return f"the model: (f(x) + f(x.flip({axis}))) / 2 in evaluation"


@operator("axis", "batch-mixing")
def time_first_by_view(s: Setup, at: Site) -> str | None:
    """Time and samples change places by ``view``, not by transpose, and back: a sample's tokens are others'."""
    places = [call for call in _features(at) if len(call.went or ()) == 3 and (call.went or (0, 0))[1] > 1]
    places = [call for call in places if (call.went or (0,))[0] == at.trace.rows > 1]
    if not at.trace.repeats or (name := choose(at, places)) is None:
        return None

    def viewed(out: Tensor) -> Tensor:
        return out.reshape(out.shape[1], out.shape[0], out.shape[2]).transpose(0, 1)

    on_output(s.model.get_submodule(name), viewed)
    return f"{name}: x.view(T, N, C).transpose(0, 1)"
