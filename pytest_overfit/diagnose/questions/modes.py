"""Training against evaluation: does the loss stay, is the forward pass repeatable, which layers behave otherwise?"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Probed, Unlike
from pytest_overfit.diagnose.movement import Written
from pytest_overfit.diagnose.operation import LOSS, Attention, Drawn, HeadMask, Op
from pytest_overfit.diagnose.questions.dependence import evaluating_mode
from pytest_overfit.diagnose.questions.model_calls import ModelCall
from pytest_overfit.diagnose.questions.own_answers import (
    Answer,
    Answers,
    Apart,
    at_the_end,
    gap_between,
    in_one_order,
    own_answers,
    own_buffers,
    reordered,
)
from pytest_overfit.diagnose.questions.running_statistics import buffers_of, by_steps, distance_left, settle
from pytest_overfit.diagnose.questions.step_tracer import StepTracer
from pytest_overfit.diagnose.questions.tensors import is_real
from pytest_overfit.errors.asking import Questions, Unanswerable
from pytest_overfit.run.attributes import attributes_kept
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.elements import is_dense
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.update import into_training

SETTLE = 20  # forward passes over which running statistics are averaged where a pass is random
SAME = 1e-3  # relative: kernels of training and of evaluation round differently
TRIED = 3  # seeds, of which one is to turn an input
MOST = 3  # modules of which it is measured what comes of it: the others follow from the first
WRITTEN = 1e-4  # of a parameter's size: more than a weight that is brought to a length again is rounded
SUSPICIOUS = 0.1  # of the fall of the loss: a gap in evaluation mode from which it is looked at twice


def look(
    context: RunContext, task: Any, found: Probed, calls: list[ModelCall], curves: Curves, questions: Questions
) -> Probed:
    """Fills in ``evaluation``, ``evaluation_settled``, ``random_*``, ``permuted_input``, ``moded``, ``unlike``."""
    ask = questions.ask
    start = curves.steps[0]["objective"] if curves.steps else math.nan
    with attributes_kept(context.task.model):
        random_training = ask("randomness in training mode", lambda: _randomness(calls), otherwise=0.0)
    nothing: tuple[float | None, Answers] = None, {}
    sizes = _sizes(context.task.model)
    evaluation, plain = ask("the loss in evaluation mode", lambda: _evaluated(context, task), otherwise=nothing)
    written: Written | None = None
    if plain and _sizes(context.task.model) != sizes:
        question = "what evaluation writes into weights"
        written = ask(question, lambda: _written(context, lambda: _evaluated(context, task)), otherwise=None)
    settled, evaluated = evaluation, lambda: _evaluated(context, task)[0]
    stepped: tuple[float | None, float | None] = None, None
    stays: tuple[float, float] | None = None
    trained = buffers_of(context)
    training, passes = found.training, SETTLE if random_training > 0 else 1
    if evaluation is not None and training is not None and math.isfinite(start):
        fall = start - training
        if fall > 0 and not evaluation < training + SUSPICIOUS * fall:
            question = "the loss in evaluation mode once running statistics have settled"
            settled = ask(question, lambda: _settled(context, task, passes), otherwise=None)
            if settled is not None and settled < training + SUSPICIOUS * fall:
                question = "whose the running statistics of a step are"
                stepped = ask(question, lambda: by_steps(context, passes, evaluated), otherwise=stepped)
                question = "whether running statistics settle"
                stays = ask(question, lambda: distance_left(context, task, trained), otherwise=stays)
    question = "what modules compute otherwise in training mode"
    moded, unlike = ask(question, lambda: _compared(context, task, plain), otherwise=((), ()))
    drawn: tuple[Op, ...] = ()
    if unlike:
        question = "what is random in evaluation mode, or chosen"
        drawn, chooses = ask(question, lambda: _drawn(context, task, questions), otherwise=((), False))
        if chooses and evaluation is not None and training is not None:
            costs = not evaluation <= training + SUSPICIOUS * max(start - training, 0.0)
            unlike = tuple(replace(each, meant=each.meant or not costs) for each in unlike)
    question = "an input whose order is random"
    permuted = random_training > 0 and ask(question, lambda: _turns_inputs(context, task, plain), otherwise=False)
    return replace(
        found,
        evaluation=evaluation,
        evaluation_settled=settled,
        evaluation_by_steps=stepped,
        distance_left=stays,
        random_training=random_training,
        random_evaluation=max((each.moved for each in unlike if each.chance), default=0.0),
        permuted_input=permuted,
        moded=moded,
        unlike=unlike,
        written=written,
        ops=(*found.ops, *drawn),
    )


def _sizes(model: nn.Module) -> list[float]:
    """The norm of every parameter, read at once."""
    held = [p.detach() for p in model.parameters() if is_real(p) and is_dense(p)]
    return torch.stack([norm.double() for norm in torch._foreach_norm(held)]).tolist() if held else []


def _written(context: RunContext, evaluated: Callable[[], Any]) -> Written | None:
    """The parameter that a pass in evaluation mode moves once more: what only comes to its place there stays."""
    held = [(name, p, p.detach().clone()) for name, p in context.task.model.named_parameters() if is_real(p)]
    evaluated()
    for name, p, old in held:
        if (moved := float((p.detach() - old).norm() / old.norm().clamp_min(1e-12))) > WRITTEN:
            return Written(name, moved)
    return None


def _evaluated(context: RunContext, task: Any) -> tuple[float | None, Answers]:
    """The objective in evaluation mode, None where it is no number there, and what every module answers."""
    model, terms = context.task.model, dict[str, Tensor]()
    with evaluating_mode(model), mode_held(model):
        seed_everything(context.seed)
        plain = own_answers(model, lambda: terms.update(context.on(task).forward()[1]))
    value = float(terms["objective"].detach())
    return (value if math.isfinite(value) else None), plain


def _compared(context: RunContext, task: Any, plain: Answers) -> tuple[tuple[str, ...], tuple[Unlike, ...]]:
    """The modules that compute otherwise in training mode, and of those what no chance and no statistics explain.

    Beside them what is random in evaluation mode. What a module does otherwise is measured at the end as well: the
    outputs of the model in evaluation mode, with this one module in training mode or with other random numbers.
    """
    if not plain:
        raise Unanswerable("nothing of it was recorded in evaluation mode")
    model, on = context.task.model, context.on(task)
    names = {id(module): name or type(model).__name__ for name, module in model.named_modules()}

    def answers(recorded: Answers | None = None, seed: int = 0, apart: Apart | None = None) -> Answers:
        seed_everything(context.seed + seed)
        with mode_held(model):
            return own_answers(model, on.forward, recorded, apart=apart)

    def unlike(answer: Answer, *, moved: float, chance: bool, turns: bool = False) -> Unlike:
        kept, name = () if chance else _still(context, answer.module), names[id(answer.module)]
        decodes = answer.root and answer.handed is not None and answer.handed <= SAME and not asked_again
        meant = (decodes and not turns) or _averages(context, answer.module)
        return Unlike(name, type(answer.module).__name__, answer.gap, moved, chance, kept, turns, meant)

    into_training(model)
    owned = ((m._buffers, name, b) for m in model.modules() for name, b in m._buffers.items())
    held = [(buffers, name, b, b.clone()) for buffers, name, b in owned if b is not None]
    trained = answers(plain)
    asked_again = any(key not in trained and (key[0], 0) in trained for key in plain)  # who does not only decode
    with torch.no_grad():
        for buffers, name, buffer, old in held:  # a module may put another tensor in its place
            buffers[name] = buffer.copy_(old)
    other = {key: each for key, each in trained.items() if each.gap > SAME}
    found: list[Unlike] = []
    with evaluating_mode(model):
        now, again = (answers(), answers(plain)) if other else ({}, {})  # statistics may have settled since
        shaky = {key for key, each in again.items() if each.gap > SAME}
        kept = {
            key: _still(context, each.module) or not own_buffers(each.module) for key, each in other.items()
        }  # else settled
        meant = [key for key, each in other.items() if each.drew or each.wrote or not kept[key]]
        for key in [key for key in other if key not in shaky and key not in meant][:MOST]:
            module = trained[key].module
            module.training = True
            try:
                alone = answers()
                turns = in_one_order(now[key].output, alone[key].output)  # what decodes sorts every sample by itself
                found.append(unlike(trained[key], moved=at_the_end(now, alone), chance=False, turns=turns))
            finally:
                module.training = False
        if any(each.drew for each in plain.values()):
            drawn = answers(plain, seed=1)
            moved = at_the_end(plain, answers(seed=1))
            turned = answers(plain, seed=1, apart=reordered)
            random = [key for key, each in drawn.items() if plain[key].drew and each.gap > SAME and key not in shaky]
            random.sort(key=lambda key: not turned[key].gap)
            found += [
                replace(unlike(drawn[key], moved=moved, chance=True), turns=bool(turned[key].gap))
                for key in random[:MOST]
            ]
    moded = dict.fromkeys(names[id(trained[key].module)] for key in other if key not in shaky)
    return tuple(moded), tuple(found)


def _still(context: RunContext, module: nn.Module) -> tuple[str, ...]:
    """Its own buffers that are as they were at the start."""
    buffers = [(name, b, context.start.value(b)) for name in own_buffers(module) for b in [module.get_buffer(name)]]
    return tuple(name for name, b, start in buffers if start is not None and torch.equal(start.to(b.device), b))


def _averages(context: RunContext, module: nn.Module) -> bool:
    """Whether it holds parameters that are frozen and have moved: a copy that follows, which evaluation may read."""
    frozen = [(p, context.start.value(p)) for p in module.parameters() if not p.requires_grad]
    return any(start is not None and not torch.equal(start.to(p.device), p) for p, start in frozen)


def _turns_inputs(context: RunContext, task: Any, plain: Answers) -> bool:
    """Whether chance hands an input of the model on in another order, in training mode."""
    model, given = context.task.model, [t for answer in plain.values() if answer.root for t in answer.given]

    def turned(old: list[Tensor], new: list[Tensor]) -> float:
        pairs = [
            (a, b) for a, b in zip(old, new, strict=False) if any(a.shape == t.shape and a.equal(t) for t in given)
        ]
        return reordered([a for a, _ in pairs], [b for _, b in pairs])

    into_training(model)
    for seed in range(TRIED):
        seed_everything(context.seed + seed)
        with mode_held(model):
            answers = own_answers(model, context.on(task).forward, plain, apart=turned)
        if any(answer.gap for answer in answers.values()):
            return True
    return False


@contextlib.contextmanager
def mode_held(model: nn.Module) -> Iterator[None]:
    """Keeps the model in the mode in which it is, whatever a train step says."""
    own = vars(model).get("train")
    vars(model)["train"] = lambda mode=True: model
    try:
        yield
    finally:
        del vars(model)["train"]
        if own is not None:
            vars(model)["train"] = own


def _settled(context: RunContext, task: Any, passes: int) -> float | None:
    """The same with the running statistics of the trained weights, as the batch has them: only what stays is a gap."""
    settle(context, task, passes)
    return _evaluated(context, task)[0]


def _randomness(calls: list[ModelCall]) -> float:
    """How far two passes of different seeds lie apart, relative to the size of the outputs."""
    passes = ((call.again(seed=1), call.again(seed=2)) for call in calls)
    return max((gap_between(a, b) for a, b in passes), default=0.0)


def _drawn(context: RunContext, task: Any, questions: Questions) -> tuple[tuple[Op, ...], bool]:
    """What draws in evaluation mode and lets features through by chance, or adds to them, with its line; a choice."""
    tracer = StepTracer(context.task.model, context.task.batch, None, questions)
    model = context.task.model
    with evaluating_mode(model), mode_held(model), tracer.tracing([], modules=False):
        context.on(task).forward()
    found = [
        Op("built", "", line, fact=Drawn(type(module).__name__, math.nan, of_input=False))
        for line, module in tracer.built
        if module._parameters
    ]
    for op in tracer.ops:
        fact = op.fact
        if isinstance(fact, (Attention, HeadMask)) and fact.dropout:
            fact = Drawn("dropout of the attention", fact.dropout, of_input=False, gates=True)
        if isinstance(fact, Drawn) and op.region != LOSS:
            found.append(replace(op, name="random_in_evaluation", fact=fact))
    return tuple(found), tracer.graph.chooses
