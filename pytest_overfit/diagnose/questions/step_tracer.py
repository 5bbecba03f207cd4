"""One training step under close watch: its calls in order, its modules, the operations worth a note, its graph."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from pytest_overfit.diagnose.operation import LOSS, Op, OutOfRange, ThrownAway
from pytest_overfit.diagnose.questions.operation_facts import Called, describe, is_noted
from pytest_overfit.diagnose.questions.operation_names import LOSSES
from pytest_overfit.diagnose.questions.padding import padding_of, pads_of
from pytest_overfit.diagnose.questions.plain_weights import PlainWeights
from pytest_overfit.diagnose.questions.step_calls import by_optimizer_or_us, calls_told, users_line
from pytest_overfit.diagnose.questions.step_graph import StepGraph
from pytest_overfit.diagnose.questions.table_rows import TableRows
from pytest_overfit.diagnose.questions.tensors import is_real, lives, made_by, size_of, spread, tensors_in
from pytest_overfit.diagnose.questions.thrown_away import changed_in_vain, is_statement, keeps_nothing
from pytest_overfit.diagnose.questions.torch_functions import TorchFunctions, steps_unheard, unheard
from pytest_overfit.diagnose.questions.weighted_sums import WeightedSums
from pytest_overfit.diagnose.step_trace import CallKind, Clip, Event, Module, OptimizerStep, Step
from pytest_overfit.errors.asking import Questions
from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.elements import is_dense, numbers_of
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.update import optimizers_heard
from pytest_overfit.untrusted.objects import is_a

MOST_OPS = 400
MASKING = ("masked_fill", "full", "full_like", "fill", "where", "triu", "tril", "index_fill", "new_full", "tensor")
HUGE = 1e15  # float32 ends at 3e38: products of such numbers, and their gradients, go beyond
COMPILED = ("OptimizedModule", "ScriptModule", "RecursiveScriptModule")


class StepTracer:
    """Records steps of one run.

    Args:
        model: the modules that were handed over, as one.
        batch: what they are trained on.
        samples: the length of its axis of samples, None where there is none.
        questions: keeps what breaks here, which must never break what is traced.
    """

    def __init__(self, model: nn.Module, batch: Any, samples: int | None, questions: Questions) -> None:
        self.model, self.batch, self.samples, self.questions = model, batch, samples, questions
        self.names = {id(module): name or type(model).__name__ for name, module in model.named_modules()}
        self.graph = StepGraph(model)
        self.parameters, self.tables = self.graph.parameters, TableRows()
        self.plain_weights = PlainWeights({self.names[id(each)]: each for each in model.modules()}, self.parameters)
        self.keys = {id(tensor): key for key, tensor in named_tensors(batch)}
        self._padding: list[Tensor | None] = []
        self.plain = not any(type(module).__name__ in COMPILED for module in model.modules())
        self.stack: list[str | None] = []  # None: a module that is a loss, called beside the model
        self.consumed: dict[int, int] = {}  # parameters whose gradient an optimizer has applied, and its version
        self.polluted: set[int] = set()  # and that was added to since, without having been zeroed
        self.heard = True
        self.clear()

    @property
    def padding(self) -> Tensor | None:
        """What of the batch is padding, looked for once an attention wants to know."""
        if not self._padding:
            self._padding.append(padding_of(self.batch, pads_of(self.model)))
        return self._padding[0]

    def clear(self) -> None:
        self.events: list[Event] = []
        self.ops: list[Op] = []
        self.modules: list[Module] = []
        self.differentiated: list[float] = []
        self.in_training: list[bool] = []
        self.graph.clear()
        self.kept: list[Tensor] = []
        self.built: list[tuple[str, nn.Module]] = []  # what forward builds, with the line
        self.sources: dict[int, Tensor] = {}  # what a detached or converted number was made of
        self.outputs: list[Tensor] = []  # of the last root call
        self.drawn: list[Tensor] = []  # random numbers
        self.sums = WeightedSums()
        self.targets: list[Tensor] = []  # what predictions are compared with
        self.bad: Op | None = None
        self.constant: Op | None = None  # the first that gave an infinity without a gradient
        self.huge: Op | None = None

    @contextlib.contextmanager
    def tracing(
        self, optimizers: list[Any], *, modules: bool, operations: bool = True, checked: bool = True
    ) -> Iterator[None]:
        """Records what happens in the block.

        Args:
            optimizers: those that are known; others are heard of when they step.
            modules: measure the output of every module.
            operations: note operations of the forward pass and the loss.
            checked: look for the first result that is no number.
        """
        self.clear()
        self.stack.clear()
        self.measured, self.checked, self.operations = modules, checked, operations
        self.graph.held |= {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
        with contextlib.ExitStack() as stack:
            stack.enter_context(optimizers_heard(self._before_step))
            if self.plain:
                for handle in (
                    register_module_forward_pre_hook(self._enter),
                    register_module_forward_hook(self._leave, always_call=True),
                ):
                    stack.callback(handle.remove)
            self.heard = stack.enter_context(calls_told(self._called))
            if operations and self.plain:
                stack.enter_context(TorchFunctions(self.operation, self.keys, self.questions))
            stack.enter_context(steps_unheard())
            yield

    def step(self, number: int, reported: float, source: Tensor | None) -> Step:
        """What was recorded, as plain numbers.

        Args:
            source: the tensor that came back as the objective, with its graph where it has one.
        """
        connected = None
        if source is not None:
            source = self.sources.get(id(source), source)
            if (node := made_by(source)) is not None and self.graph.nodes:
                connected = node in self.graph.nodes
        graph, seen = self.graph, self.plain
        cuts = self.questions.ask("what cuts gradients off", graph.cuts, otherwise=()) if seen else ()
        now = {name: id(p) for name, p in self.model.named_parameters()}
        traced = Step(
            number=number,
            reported=reported,
            events=tuple(self.events),
            ops=tuple(self.ops),
            modules=tuple(self.modules),
            differentiated=tuple(self.differentiated),
            in_training=tuple(self.in_training),
            reached=tuple(self.parameters[i] for i in graph.reached),
            foreign=len(graph.foreign),
            foreign_in_optimizer=graph.foreign_held,
            connected=connected,
            heard=self.heard,
            unread=graph.unread() if seen else (),
            cuts=cuts,
            replaced=tuple(name for i, name in self.parameters.items() if now.get(name, i) != i),
            constants=dict(graph.summands),
        )
        graph.clear()
        self.sources, self.kept, self.built = {}, [], []
        return traced

    def _called(self, kind: CallKind, frame: FrameType) -> None:
        with self.questions.asking("the calls of a step"):
            line, of = users_line(frame.f_back), frame.f_locals.get("self")
            if kind == "backward":
                self._backward(frame.f_locals.get("tensors"), line)
            elif kind == "clip":
                self.events.append(Event("clip", line, self._clip(frame)))
            elif kind == "grad":
                self.graph.asked |= {id(t) for t in tensors_in([frame.f_locals.get("inputs")])}
                self.events.append(Event(kind, line))
            elif kind == "new_module":
                if line and isinstance(of, nn.Module) and self.in_model:
                    self.built.append((line, of))  # it has no parameters before its __init__ is over
            elif kind != "new_parameter" or (line and frame.f_locals.get("param") is not None):
                self.events.append(Event(kind, line))

    def _backward(self, tensors: Any, line: str) -> None:
        dirty = {id(p): p.grad._version for p in self.model.parameters() if p.grad is not None and lives(p.grad)}
        self.consumed = {i: version for i, version in self.consumed.items() if dirty.get(i) == version}
        roots = list(tensors_in(tensors if not isinstance(tensors, Tensor) else [tensors]))
        self.graph.differentiated(roots, {id(tensor) for tensor in tensors_in(self.batch)} | self.keys.keys())
        self.polluted = self.polluted & dirty.keys() | self.consumed.keys() & self.graph.reached
        self.differentiated.append(float(roots[0].detach().sum()) if roots else math.nan)
        self.in_training.append(any(module.training for module in self.model.modules()))
        self.events.append(Event("backward", line))

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        with unheard(), self.questions.asking("what an optimizer was given"):
            held = [p for group in optimizer.param_groups for p in group["params"]]
            self.graph.held |= {id(p) for p in held}
            living = {id(p) for p in held if lives(p.grad)}
            self.graph.taught |= living
            for p in held:
                if id(p) in self.tables.lookups:
                    self.tables.stepped(p, self.parameters[id(p)])
            fact = OptimizerStep(
                own=sum(id(p) in self.parameters for p in held),
                living=len(living),
                stale=len(living & self.polluted),
                closure=any(callable(a) for a in (*args, *kwargs.values())),
                norm=_norm_of(held) if any(event.kind == "clip" for event in self.events) else None,
            )
            self.polluted -= living
            self.consumed |= {id(p): p.grad._version for p in held if id(p) in living and id(p) in self.parameters}
            self.events.append(Event("step", users_line(sys._getframe(2)), fact))

    def _clip(self, frame: FrameType) -> Clip:
        given = frame.f_locals.get("parameters")
        if isinstance(given, Iterator):  # reading it would use it up
            given = list(self.model.parameters())
        held = list(tensors_in([given] if isinstance(given, Tensor) else list(given or ())))
        most = next((frame.f_locals[name] for name in ("max_norm", "clip_value") if name in frame.f_locals), math.nan)
        if "clip_value" in frame.f_locals:
            return Clip(max((float(g.abs().max()) for g in _gradients(held) if g.numel()), default=0.0), float(most))
        return Clip(_norm_of(held), float(most), whole=True)

    def _enter(self, module: nn.Module, args: Any) -> None:
        known = id(module) in self.names
        # A new container of the model's own layers, as a slice of them is, belongs to the model.
        own = known or any(id(p) in self.parameters for p in module.parameters())
        outside = self.stack[0] is None if self.stack else not own
        if not known:
            self.graph.entered(module, within=not outside)
        self.stack.append(None if outside else self.names.get(id(module), type(module).__name__))

    @property
    def in_model(self) -> bool:
        """Whether a module of the model is running; a criterion that is a module is none."""
        return bool(self.stack) and self.stack[0] is not None

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        name = self.stack.pop() if self.stack else ""
        if not self.stack and name is not None:
            with self.questions.asking("the outputs of the model"), torch._C.DisableTorchFunction():
                self.outputs = [t.detach() for t in tensors_in(output) if is_real(t)]
        if self.operations and keeps_nothing(module):
            with self.questions.asking("results that nobody takes"), torch._C.DisableTorchFunction():
                self._thrown_away(type(module).__name__, sys._getframe(1), args, {}, output)
        if not self.measured or name is None or len(self.modules) >= MOST_OPS:
            return
        asking = self.questions.asking("the size of the outputs of every module")
        with asking, torch.no_grad(), torch._C.DisableTorchFunction():
            tensor = next((t for t in tensors_in(output) if is_real(t) and t.numel()), None)
            if tensor is None:
                return
            given = next((t for t in tensors_in(args) if t.numel()), None)
            own = list(module.parameters(recurse=False))
            self.modules.append(
                Module(
                    name=name,
                    kind=type(module).__name__,
                    inside=id(module) in self.names,
                    training=module.training,
                    parameters=sum(p.numel() for p in own),
                    shape=tuple(tensor.shape),
                    size=size_of(tensor),
                    low=float(tensor.detach().min()),
                    high=float(tensor.detach().max()),
                    spread=spread(tensor, self.samples),
                    input_spread=None if given is None else spread(given, self.samples),
                    finite=bool(torch.isfinite(tensor.detach()).all()),
                    fed=0.0 if given is None or not is_real(given) else float(given.detach().abs().max()),
                )
            )

    def operation(self, name: str, frame: FrameType, args: Any, kwargs: Any, out: Any, kept: bool) -> None:
        """An operation that has just run, ``kept`` in the graph or not."""
        if by_optimizer_or_us(frame):
            return
        region = (self.stack[-1] if self.in_model else None) or LOSS
        given = (*args, *kwargs.values())
        self.graph.called(name, frame, given, out, kept=kept, region=region)
        self.tables.called(name, given, out, self.parameters)
        if not self.in_model and name.endswith("_") and name != "__get__" and self._is_weight(args[:1]):
            self.events.append(Event("write", users_line(frame)))
        if not all(is_dense(t) for t in (*args, *kwargs.values(), out) if is_a(t, Tensor)):
            return
        if len(self.targets) < 8 and len(args) >= 2 and isinstance(args[0], Tensor) and isinstance(args[1], Tensor):
            a, b = args[:2]
            compared = name in LOSSES or ("sub" in name and a.shape == b.shape and not self.in_model)
            if compared and a.requires_grad != b.requires_grad:
                self.targets.append((b if a.requires_grad else a).detach())
        if name in ("detach", "data") and args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
            self.sources[id(out)] = args[0]
            self.kept.append(out)
        if self.checked and self.bad is None and is_real(out) and out.numel():
            total = float(out.detach().sum())
            if not abs(total) < HUGE:
                self._look_closer(name, region, frame, args, out)
        self._thrown_away(name, frame, args, kwargs, out)
        if (summed := self.sums.called(name, args, kwargs, out)) is not None and region != LOSS:
            self.ops.append(Op(name, region, users_line(frame), fact=summed))
        if (plain := self.plain_weights.called(name, region, args, kwargs)) is not None:
            self.ops.append(Op(name, region, users_line(frame), fact=plain))
        if len(self.ops) < MOST_OPS and is_noted(name):
            op = describe(self, Called(name, region, args, kwargs, out, lambda: users_line(frame)))
            if op is not None:
                self.ops.append(op)

    def _thrown_away(self, name: str, frame: FrameType, args: Any, kwargs: Any, out: Any) -> None:
        if is_statement(frame, name) and (gap := changed_in_vain(name, args, kwargs, out)):
            region = (self.stack[-1] if self.in_model else None) or LOSS
            self.ops.append(Op(name, region, users_line(frame), fact=ThrownAway(gap)))

    def _is_weight(self, args: Any) -> bool:
        """Whether what is written to is a parameter of the model, or its numbers."""
        pointers = {p.data_ptr() for p in self.model.parameters() if is_dense(p)}
        return any(is_dense(t) and t.data_ptr() in pointers for t in args)

    def _look_closer(self, name: str, region: str, frame: FrameType, args: Any, out: Tensor) -> None:
        """Keeps an operation whose result is no number, or one that its gradient cannot stand."""
        given = [t for t in tensors_in(args) if is_real(t)]
        fed = tuple((float(t.min()), float(t.max())) for t in given[:2] if t.numel())
        op = Op(name, region, users_line(frame), tuple(tuple(t.shape) for t in given))
        if bool(torch.isfinite(out.detach()).all()):
            highest = float(out.detach().abs().max())
            if self.huge is None and highest > HUGE and fed:
                self.huge = replace(op, fact=OutOfRange(fed, highest))
            return
        sound = all(bool(torch.isfinite(t.detach()).all()) for t in given)
        if not _spoils(name, out, sound):
            return
        found = replace(op, fact=OutOfRange(fed, dtype=str(out.dtype).removeprefix("torch."), sound=sound))
        if out.requires_grad or bool(torch.isnan(out.detach()).any()):
            self.bad = found if sound or self.constant is None else self.constant
        else:  # a mask or a bound, as long as nothing makes a NaN of it
            self.constant = self.constant or found


def _gradients(held: list[Tensor]) -> Iterator[Tensor]:
    return (numbers for t in held if t.grad is not None and (numbers := numbers_of(t.grad)) is not None)


def _norm_of(held: list[Tensor]) -> float:
    """Of all their gradients."""
    return math.sqrt(sum(float(gradient.float().square().sum()) for gradient in _gradients(held)))


def _spoils(name: str, out: Tensor, sound: bool) -> bool:
    """Whether an operation made a number that is none out of numbers; minus infinity in a mask is meant."""
    return bool(torch.isnan(out.detach()).any()) or (sound and name.rstrip("_") not in MASKING)


def what_cuts(tracer: StepTracer, on: RunContext, held: set[int], optimizers: list[Any]) -> tuple[str, str] | None:
    """What takes numbers that these parameters, by their ids, have made out of the graph, and where."""
    seed_everything(on.seed)
    with tracer.tracing(optimizers, modules=False, checked=False):
        kept = on.forward()
        found = next(((cut.by, cut.where) for cut in tracer.graph.cuts(held)), None)
    del kept
    return found
