"""Held-out mistakes inside of models, the sixth set: what is cut from the graph, and attentions.

From trackers: a skip connection that is detached (PRBonn/lidar-bonnetal#99), a part that is called by hand with weights
of a state_dict, as for learning to learn (allenai/savn#9), a softmax that is applied twice (runame/laplace-redux#1), a
mask that is broadcast wrongly over the heads (autosome-ru/vigg_ribonanza#1, lucidrains/graph-transformer-pytorch#2), a
mask that is made of ids, where the padding has the id of a token (mll-lab-nu/RAGEN#59, huggingface/trl#6357), sequences
that are packed into one and read each other (huggingface/transformers#25452, unslothai/unsloth#1207), heads that are
joined as (head, sample) (gazelle93/Transformer-Various-Positional-Encoding#1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from benchmarks.wild.operators.masks import exchange_hidden
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Exchanged, Forward, exchange_in, override
from benchmarks.wild.operators.targets import told_tokens
from benchmarks.wild.operators.trace import ATTENTION, SOFTMAX, hidden_keys, hides

ADDING: tuple[Callable[..., Tensor], ...] = (torch.add, Tensor.add, Tensor.__add__)
DEPTH = 400  # nodes of a graph that are looked at


def _older(one: Tensor, other: Tensor) -> int | None:
    """Which of two features the other one is made of, 0 or 1; None for neither, or for what nobody has computed."""
    nodes = (one.grad_fn, other.grad_fn)
    if None in nodes or one.shape != other.shape or one.dim() < 2:
        return None
    for number in (0, 1):
        queue: list[Any] = [nodes[1 - number]]
        seen: set[Any] = set()
        while queue and len(seen) < DEPTH:
            node = queue.pop(0)
            if node is nodes[number]:
                return number if seen else None
            if node is not None and node not in seen:
                seen.add(node)
                queue += [each for each, _ in node.next_functions]
    return None


def _skips(at: Site) -> list[int]:
    """The numbers of the additions of features and of what a part has made of them."""
    found: list[int] = []
    count = [-1]

    def seen(func: Any, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if len(args) == 2 and all(isinstance(each, Tensor) for each in args) and _older(*args) is not None:
            found.append(count[0])
        return func(*args, **kwargs)

    model, batch = at.program.model().train(), at.program.batch()
    with Exchanged(ADDING, seen):
        at.program.loss(model, batch)
    return found


@operator("detached", "wrong-backward", "no-gradient", "zero-gradient")
def skip_connection_detached(s: Setup, at: Site) -> str | None:
    """``x.detach() + part(x)``: past a skip connection no gradient comes back, but through the part alone."""
    found = _skips(at)
    if not found:
        return None
    number, inner = at.choose.choice(found), s.loss

    def detached(func: Any, *args: Any, **kwargs: Any) -> Any:
        pair = list(args)
        older = _older(*args) if len(args) == 2 and all(isinstance(each, Tensor) for each in args) else None
        if older is not None:
            pair[older] = pair[older].detach()
        return func(*pair, **kwargs)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with Exchanged(ADDING, detached, number):
            return inner(model, batch)

    s.loss = loss
    return f"addition {number}: x.detach() + part(x)"


@contextmanager
def _by_value(module: nn.Module) -> Iterator[None]:
    """The module with its weights as state_dict() returns them."""
    kept = [(part, dict(part._parameters)) for part in module.modules()]
    for part, parameters in kept:
        values: Any = {name: None if each is None else each.detach() for name, each in parameters.items()}
        part._parameters.update(values)
    try:
        yield
    finally:
        for part, parameters in kept:
            part._parameters.update(parameters)


def _with_values(module: nn.Module) -> None:
    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        with _by_value(inner.args[0]):  # type: ignore[attr-defined]
            return inner(*args, **kwargs)

    override(module, forward)


@operator("detached", "no-gradient", "unused")
def part_called_with_state_dict(s: Setup, at: Site) -> str | None:
    """``functional_call(part, part.state_dict(), x)``: what it holds is detached, so the part alone has no gradient."""
    count = sum(each.requires_grad for each in s.model.parameters())
    places = at.trace.places(lambda call: call.graph and 0 < call.below <= count // 2)
    names = [
        call.name
        for call in places
        if not any(isinstance(each, nn.RNNBase) for each in s.model.get_submodule(call.name).modules())
    ]
    at.choose.shuffle(names)
    for name in names[:4]:
        model, batch = at.program.model().train(), at.program.batch()
        part = model.get_submodule(name)
        _with_values(part)
        value = at.program.loss(model, batch)
        if not value.requires_grad:
            continue
        own = [each for each in part.parameters() if each.requires_grad]
        if all(each is None for each in torch.autograd.grad(value, own, allow_unused=True)):
            _with_values(s.model.get_submodule(name))
            return f"{name}: functional_call(part, part.state_dict(), x)"
    return None


def _twice(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    """A softmax of a softmax, of an attention that is called or written out."""
    if func not in ATTENTION:
        once = func(*args, **kwargs)
        return func(once, *args[1:], **kwargs)  # type: ignore[no-any-return]
    query, key, value, *rest = args
    if kwargs.get("enable_gqa"):
        return func(*args, **kwargs)  # type: ignore[no-any-return]
    scale = kwargs.get("scale") or 1 / math.sqrt(query.shape[-1])
    scores = query @ key.transpose(-1, -2) * scale
    given = rest[0] if rest else kwargs.get("attn_mask")
    if given is not None and given.is_floating_point():
        scores = scores + given
    mask = {each: kwargs[each] for each in ("attn_mask", "is_causal") if each in kwargs}
    if (hidden := hidden_keys(query, key, value, *rest, **mask)) is not None:
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).softmax(-1) @ value  # type: ignore[no-any-return]


@operator("doubled", "double-activation", "leak", "input-ignored", "zero-gradient")
def attention_softmax_twice(s: Setup, at: Site) -> str | None:
    """The weights of an attention go through the softmax twice: they are nearly even, and what is hidden counts too."""
    places = {each.module for each in at.trace.attentions if each.query[-2] > 1}
    places |= {name for name, shape in at.trace.softmaxes if len(shape) > 2 and min(shape[-2:]) > 1}
    if not places:
        return None
    name = at.choose.choice(sorted(places))
    exchange_in(s.model.get_submodule(name), (*SOFTMAX, *ATTENTION), _twice)
    return f"{name or 'the model'}: softmax(softmax(scores))"


@operator("mask", "leak", "input-ignored")
def mask_on_first_head_alone(s: Setup, at: Site) -> str | None:
    """``scores[:, 0].masked_fill_(mask, -inf)``: the mask is applied to the first head, all others see everything."""
    future = told_tokens(at) is not None
    places = sorted({each.module for each in at.trace.hidings if each.padding or (each.future and future)})
    at.choose.shuffle(places)
    found: list[bool] = []

    def first(hidden: Tensor) -> Tensor:
        if hidden.dim() != 4 or hidden.shape[1] < 2:
            return hidden
        found.append(True)
        return hidden & (torch.arange(hidden.shape[1]) == 0)[:, None, None]

    for name in places:
        model, batch = at.program.model().train(), at.program.batch()
        exchange_hidden(model.get_submodule(name), first)
        at.program.loss(model, batch)
        if found:
            exchange_hidden(s.model.get_submodule(name), first)
            return f"{name or 'the model'}: the mask on head 0"
    return None


def _ids_of(mask: Tensor, nest: Any) -> Tensor | None:
    """The ids beside a mask."""
    for each in _pytree.tree_leaves(nest):
        fits = isinstance(each, Tensor) and each is not mask and each.shape == mask.shape
        if fits and not each.is_floating_point() and each.dtype != torch.bool and int(each.max()) > 1:
            return each  # type: ignore[no-any-return]
    return None


@operator("mask", "input-ignored")
def mask_made_of_ids(s: Setup, at: Site) -> str | None:
    """The mask is ``ids != pad``, where a token has the id of the padding, as the end of a text: it is never read."""
    if not at.trace.masks:
        return None
    keyword = at.trace.masks[0]
    padding = "padding" in keyword
    seen: list[tuple[Tensor, Tensor]] = []

    def look(module: nn.Module, args: Any, kwargs: Any) -> None:
        mask = kwargs.get(keyword)
        if not seen and isinstance(mask, Tensor) and (ids := _ids_of(mask, (args, kwargs))) is not None:
            seen.append((ids.clone(), mask.bool() ^ padding))

    model = at.program.model().train()
    model.register_forward_pre_hook(look, with_kwargs=True)
    at.program.loss(model, at.program.batch())
    if not seen:
        return None
    ids, visible = seen[0]
    left = {each: (visible & (ids != each)).sum(-1) for each in set(ids[visible].tolist())}
    fit = [each for each, rest in left.items() if int(rest.min()) > 1]
    if not fit:
        return None
    taken = min(fit, key=lambda each: int(left[each].sum()))

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get(keyword)
        if not isinstance(mask, Tensor) or (ids := _ids_of(mask, (args, kwargs))) is None:
            return inner(*args, **kwargs)
        hidden = ids == taken
        made = mask.masked_fill(hidden, 1 if padding else 0)
        return inner(*args, **{**kwargs, keyword: made})

    override(s.model, forward)
    return f"{keyword}: ids != {taken}"


def _of_samples(at: Site, heads: int) -> list[str]:
    """Modules whose attentions are over (sample, head, token)."""
    calls = [each for each in at.trace.attentions if len(each.query) == 4 and each.query[0] == at.trace.rows > 1]
    return sorted({each.module for each in calls if each.query[1] >= heads and each.query[2] > 1})


def _seen_when_packed(hidden: Tensor) -> Tensor | None:
    """Who sees whom in one sequence of all samples: padding and future stay hidden; None where more than that is."""
    count, length = len(hidden), hidden.shape[-1]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    padding = hidden[:, 0].all(-2)
    causal = bool(hidden[..., future].all())
    if not torch.equal(padding[:, None, None] | (future & causal), hidden[:, :1]):
        return None
    whole = torch.ones(count * length, count * length, dtype=torch.bool)
    seen = (whole.tril() if causal else whole) & ~padding.flatten()
    return seen | (~seen.any(-1, keepdim=True) & torch.eye(len(seen), dtype=torch.bool))  # a row of nothing is NaN


def _packed(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    """An attention over the tokens of all samples, as of one sequence; None where it cannot be."""
    given = args[0] if args else kwargs.get("attn_mask")
    biased = given is not None and given.is_floating_point() and bool(given.masked_fill(hides(given), 0.0).any())
    if query.dim() != 4 or query.shape[0] != len(key) or query.shape[2] != key.shape[2] or biased or len(args) > 1:
        return None
    kept: dict[str, Any] = {each: kwargs[each] for each in kwargs if each != "attn_mask"}
    if given is not None:
        hidden = hidden_keys(query, key, value, given)
        seen = None if hidden is None else _seen_when_packed(hidden)
        if seen is None:
            return None
        kept["attn_mask"] = seen
    q, k, v = (each.transpose(0, 1).flatten(1, 2)[None] for each in (query, key, value))
    return func(q, k, v, **kept)[0].unflatten(1, (len(query), -1)).transpose(0, 1)  # type: ignore[no-any-return]


@operator("axis", "batch-mixing")
def packed_without_boundaries(s: Setup, at: Site) -> str | None:
    """All samples are packed into one sequence, and no mask keeps them apart: tokens read those of other samples."""
    places = _of_samples(at, heads=1)
    done: list[bool] = []
    at.choose.shuffle(places)

    def packed(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        out = _packed(func, *args, **kwargs)
        if out is not None and not done:
            done.append(True)
        return func(*args, **kwargs) if out is None else out

    for name in places:
        model, batch = at.program.model().train(), at.program.batch()
        exchange_in(model.get_submodule(name), ATTENTION, packed)
        at.program.loss(model, batch)
        if done:
            exchange_in(s.model.get_submodule(name), ATTENTION, packed)
            return f"{name or 'the model'}: attention over (1, N * T, C)"
    return None


def _joined(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    out: Tensor = func(*args, **kwargs)
    return out.reshape(out.shape[1], out.shape[0], *out.shape[2:]).transpose(0, 1) if out.dim() == 4 else out


@operator("axis", "batch-mixing")
def heads_joined_in_wrong_order(s: Setup, at: Site) -> str | None:
    """The heads of an attention are viewed as (head, sample), and are (sample, head): they go on with other samples."""
    places = _of_samples(at, heads=2)
    if not places:
        return None
    name = at.choose.choice(places)
    exchange_in(s.model.get_submodule(name), ATTENTION, _joined)
    return f"{name or 'the model'}: out.view(H, N, T, D)"
