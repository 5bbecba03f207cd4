"""What one forward pass of the trained model shows, and what the model answers when it is asked on its own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Probed, Term
from pytest_overfit.diagnose.movement import Withheld
from pytest_overfit.diagnose.pairs import Pairs, Turned
from pytest_overfit.diagnose.questions import loss_terms, modes
from pytest_overfit.diagnose.questions import padding as padded
from pytest_overfit.diagnose.questions.broadcasts import unpaired
from pytest_overfit.diagnose.questions.class_columns import class_columns
from pytest_overfit.diagnose.questions.custom_functions import custom_functions
from pytest_overfit.diagnose.questions.cut_terms import cut_terms
from pytest_overfit.diagnose.questions.dependence import (
    Dependence,
    depend,
    evaluated,
    evaluating_mode,
    read_by,
    with_answers,
)
from pytest_overfit.diagnose.questions.documents import measure_documents
from pytest_overfit.diagnose.questions.frozen_terms import frozen_by_term
from pytest_overfit.diagnose.questions.held_outputs import Forward
from pytest_overfit.diagnose.questions.lost_inputs import lost, numbers_made
from pytest_overfit.diagnose.questions.met_targets import LookBack
from pytest_overfit.diagnose.questions.mixing import MOVED
from pytest_overfit.diagnose.questions.model_calls import ModelCall, model_calls
from pytest_overfit.diagnose.questions.objective_slopes import measure_agreement
from pytest_overfit.diagnose.questions.output_slopes import follows_choice, innermost_slopes, measure_output_slopes
from pytest_overfit.diagnose.questions.outputs import last_layers, measure_outputs
from pytest_overfit.diagnose.questions.parameter_updates import TracedUpdate
from pytest_overfit.diagnose.questions.place_order import measure_places
from pytest_overfit.diagnose.questions.samples_alone import measure_unlearnt
from pytest_overfit.diagnose.questions.step_loss import loss_of
from pytest_overfit.diagnose.questions.step_tracer import StepTracer, what_cuts
from pytest_overfit.diagnose.questions.summands import standing_summands
from pytest_overfit.diagnose.questions.taught_rows import measure_pairs, passed_as_they_are
from pytest_overfit.diagnose.questions.term_reach import measure_unfelt
from pytest_overfit.diagnose.reached_modules import Unfelt
from pytest_overfit.errors.asking import Questions, Refused, Unanswerable, users_code
from pytest_overfit.run.attributes import attributes_kept
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.call_task import listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.task import Heard, Terms
from pytest_overfit.run.update import into_training


class TrainedModel:
    """The model as it was trained, open to questions; ``found`` has the answers so far.

    Args:
        traced: what was seen of the first steps, None where they were not traced.
        samples: the length of the axis of samples, None where there is none.
        questions: asks everything, and keeps what could not be asked.
    """

    def __init__(
        self, context: RunContext, traced: TracedUpdate | None, samples: int | None, questions: Questions
    ) -> None:
        self.context, self.traced, self.samples, self.questions = context, traced, samples, questions
        self.found = Probed()
        self.targets: list[Tensor] = []
        self.outputs: Mapping[str, Tensor] = {}
        self.functions: set[type] = set()
        self.carries = False  # the next call of a model gives something else
        self.counted: list[Tensor] = []  # the places (B, T) of outputs (B, T, ...) that have a slope
        self.single: list[Tensor] = []  # those of outputs (B, T)
        self.all_live = False  # every sample has a slope
        self.withheld = Withheld(())
        self.back: tuple[Any, ...] = ()
        self.made: list[Tensor] = []  # outputs and terms, as the batch is

    def ask(self, curves: Curves) -> None:
        """Everything that one forward pass in training mode shows, and what the model answers in evaluation mode."""
        context, task = self.context, loss_of(self.context)
        if task is None:
            self.questions.leave_out("everything about the trained model", "there is neither loss nor step to ask")
            return
        on = context.on(task)
        calls = self._forward(context, on, curves)
        with attributes_kept(context.task.model):
            self._ask_models(context.task.model, calls)
        with self.questions.asking("what of the numbers and graphs of the batch is read"):
            self.back += lost(on, self.made, calls)
        with self.questions.asking("which samples teach, and by whose target"):
            self._know(pairs=self._pairs(on, calls))
        if curves.stop == "passed" and not self.all_live:
            with self.questions.asking("what every sample costs by itself"):
                self._know(unlearnt=measure_unlearnt(on, self.samples, self._named(calls)))
        with self.questions.asking("whether places meet their own targets"):
            self._know(turned=self._turned(on, calls))
        if self.traced is not None and self.traced.steps:
            with self.questions.asking("whether rows that are broadcast belong to each other"):
                into_training(context.task.model)
                found = unpaired(on.seeded, self.traced.steps[0].ops)
                self._know(ops=(*self.found.ops, *found))
        with self.questions.asking("whether class ids are held against every column"):
            self._know(ops=(*self.found.ops, *class_columns(on, self.found.ops)))
        with self.questions.asking("what summands of the loss without a gradient come to"):
            steps = [step.constants for step in self.traced.steps] if self.traced is not None else []
            into_training(context.task.model)
            self._know(ops=(*self.found.ops, *standing_summands(self._tracer(on), on, steps)))
        with self.questions.asking("whether padding moves the objective"):
            self._ask_padded_loss(on)
        if curves.stop != "passed":
            with self.questions.asking("which outputs the objective reads without a gradient"):
                self._know(unfelt=self._unfelt(on, calls))
            if {bool(output.final) for output in self.found.outputs} == {True, False}:
                with self.questions.asking("what takes an output out of the graph"):
                    self._know(cut=self._cut(on, ""))
            with self.questions.asking("which summands of the objective are cut from the model"):
                straight = self.traced is not None and self.traced.tracer.graph.passes_through
                self._know(ops=(*self.found.ops, *cut_terms(on, straight=straight)))
        with self.questions.asking("how terms grow with the batch"), contextlib.suppress(Refused):
            self._know(growth=loss_terms.measure_growth(on, self.found.terms, self.samples or 0))
        self.found = modes.look(context, task, self.found, calls, curves, self.questions)
        self._ask_slopes()
        known = self.found.agreement.functions if self.found.agreement is not None else ()
        graph = None if self.traced is None else self.traced.tracer.graph
        meant = graph is not None and (graph.estimates or (graph.chooses and self._chooses(on)))
        if not meant and len(known) == len(self.functions) and all(slope.agrees for slope in known):
            with self.questions.asking("whether gradients are those of the outputs"):
                self._blind(on, failed=curves.stop != "passed")
        if self.found.ignored:  # a sharp attention reads nothing of most places, and read them once
            with self.questions.asking("whether what is ignored was so at the start"):
                self._at_start()
                read = [name for call in calls for name in read_by(call, several=len(calls) > 1)]
                self._know(ignored=tuple(name for name in self.found.ignored if name not in read))

    def _ask_slopes(self) -> None:
        """Whether gradients agree with the objective; of what a regrouped batch changes also before the first step."""
        question, context = "whether gradients are those of the reported objective", self.context
        look = partial(measure_agreement, context, self.samples, self.functions)
        self._know(agreement=self.questions.ask(question, look, otherwise=None))
        if self.found.agreement is not None and self.found.agreement.depends_on_groups:
            context.start.restore()
            self._know(agreement_at_start=self.questions.ask(question, look, otherwise=None))

    def _at_start(self) -> None:
        self.context.start.restore()
        into_training(self.context.task.model)

    def _know(self, **answers: Any) -> None:
        """Keeps what was answered: of a probe that breaks off the rest still counts."""
        self.found = self.found.knowing(**answers)

    def _forward(self, context: RunContext, on: RunContext, curves: Curves) -> list[ModelCall]:
        """One forward pass and the loss, closely watched where that pays; the calls of the models in it."""
        named = listened_to(getattr(context.task, "given", context.task.model))
        tracer = self._tracer(context)
        into_training(context.task.model)
        seed_everything(context.seed)
        first = self.traced.steps[0].ops if self.traced is not None and self.traced.steps else ()
        weighed = any(op.name in ("attention", "softmax") for op in first)
        closely = curves.stop != "passed" or weighed or not first
        watching = (
            tracer.tracing(context.optimizers, modules=curves.stop != "passed", checked=False)
            if closely
            else contextlib.nullcontext()
        )
        calls: list[ModelCall] = []
        back, terms = LookBack(on), Terms()
        asking = self.questions.asking("a forward pass of the trained model")
        with asking, model_calls(named, calls), back.listening(), watching:  # the tracer hears everything first
            heard, terms = on.forward()
            self._know(modules=tuple(tracer.modules), ops=tuple(tracer.ops) if closely else first)
            self.targets = tracer.targets or (self.traced.targets if self.traced is not None else [])
            gated = tracer.parameters if any(op.name == "argmax" for op in first) else {}
            self._ask_loss(on, heard, terms, gated, calls, failed=curves.stop != "passed")
        with self.questions.asking("the gradients and targets of one call"):
            self.back = back.ask(terms["objective"]) if terms else ()
        return calls

    def _ask_loss(
        self,
        on: RunContext,
        heard: Heard,
        terms: Terms,
        gated: Mapping[int, str],
        calls: list[ModelCall],
        *,
        failed: bool,
    ) -> None:
        """What of the outputs, of the samples and of the weights the loss reads."""
        batch, ask = on.task.batch, self.questions.ask
        objective = terms["objective"]
        self._know(training=float(objective.detach()))
        self.functions = ask("autograd functions", lambda: custom_functions(objective), otherwise=set())
        nothing: tuple[tuple[Term, ...], Mapping[str, Tensor]] = ((), {})
        looked, gradients = ask(
            "the terms of the loss", lambda: loss_terms.measure_terms(heard, terms, gated), otherwise=nothing
        )
        if any(term.weights_only for term in looked):  # or it reads what the model keeps of a batch
            other = on.forward(map_tensors(loss_terms.another, batch))[1]
            same = {name for name, term in terms.items() if name in other and torch.equal(term, other[name])}
            looked = tuple(replace(term, weights_only=term.weights_only and term.name in same) for term in looked)
        if idle := [term.name for term in looked if term.weight == 0]:
            question = "which terms weigh something later"
            later = ask(question, lambda: loss_terms.weighed_later(on, idle), otherwise=set())
            looked = tuple(replace(t, weight=None, share=None) if t.name in later else t for t in looked)
        grids = [g != 0 for g in gradients.values()]
        self.counted = [grid.flatten(2).any(2) for grid in grids if grid.dim() > 2]
        self.single = [grid for grid in grids if grid.dim() == 2]
        rows = [grid.reshape(len(grid), -1).any(1) for grid in grids if grid.dim() and len(grid) == self.samples]
        self.all_live = bool(rows) and bool(torch.stack([row.cpu() for row in rows]).any(0).all())
        outputs = ask("the outputs", lambda: measure_outputs(heard, gradients, self.samples), otherwise=())
        named = {id(p): name for name, p in on.task.model.named_parameters()}
        last = ask("the layers that make outputs", lambda: last_layers(heard, named), otherwise=())
        self._know(terms=looked, outputs=outputs, last_layers=last)
        if failed:
            held = ask("terms behind frozen parameters", lambda: frozen_by_term(on), otherwise={})
            self.withheld = Withheld(held.get("objective", ()))
            self._know(terms=tuple(replace(term, frozen=held.get(term.name, ())) for term in looked))
        if not gradients and heard:
            learning = [p for p in on.task.model.parameters() if p.requires_grad]
            alone = ask(
                "a loss of the weights alone",
                lambda: loss_terms.reads_weights_alone(on.forward, batch, learning),
                otherwise=False,
            )
            self._know(weights_alone=alone)
        self.outputs = {name: tensor.detach() for name, tensor in heard}
        self.made = numbers_made(heard, terms)

    def _ask_models(self, model: nn.Module, calls: list[ModelCall]) -> None:
        """What the outputs of every model depend on, and the range of what it is given."""
        wide = any(isinstance(m, nn.Linear) and m.out_features == self.samples for m in model.modules())
        shapes = [shape for op in self.found.ops for shape in op.shapes if len(shape) >= 2]
        squares = any(shape[-1] == shape[-2] == self.samples for shape in shapes)
        pairwise = self.samples is not None and not wide and squares
        answers = []
        for call in calls:
            answer = Dependence()
            with self.questions.asking(_of("what the outputs depend on", call)), evaluating_mode(call.module):
                answer = depend(
                    call, samples=self.samples, targets=self.targets, pairwise=pairwise, questions=self.questions
                )
            answers.append(answer)
            self.carries |= answer.carried
        self.found = with_answers(self.found, answers, calls)
        padding = self.questions.ask("what is padding", self._padding, otherwise=None)
        for call in (call for call, answer in zip(calls[:1], answers, strict=False) if not answer.random):
            with self.questions.asking(_of("whether padding moves the outputs", call)), evaluating_mode(call.module):
                self._know(padding=None if padding is None else padded.measure_padding(call, padding))
                self._know(read=padded.read_otherwise(call, self.context.task.batch))
            question = _of("whether the documents of a row move each other", call)
            with self.questions.asking(question), evaluating_mode(call.module):
                self._know(packed=measure_documents(call))

    def _padding(self) -> Tensor | None:
        return padded.padding_of(self.context.task.batch, padded.pads_of(self.context.task.model), self.counted)

    def _ask_padded_loss(self, on: RunContext) -> None:
        def asked(batch: Any) -> tuple[list[Tensor], float]:
            seed_everything(on.seed)
            with evaluating_mode(on.task.model), users_code():
                heard, terms = on.forward(batch)
            return [each.detach() for _, each in heard], float(terms["objective"].detach())

        padding = self._padding()
        if padding is not None:
            known = padded.measure_padded_loss(asked, on.task.batch, padding, self.found.padding, self.counted)
            self._know(padding=known)
            self._know(counted=padded.counted_otherwise(padding, [*self.counted, *self.single]))
        if self.found.causal:
            self._know(untaught=padded.untaught_ends(on.task.batch, self.counted))

    def _pairs(self, on: RunContext, calls: list[ModelCall]) -> Pairs | None:
        batch, mixed = on.task.batch, self.found.mixed
        if self._has_several_backwards(on):
            raise Unanswerable("a step of several backward passes reads other samples in each")
        into_training(on.task.model)
        settled = mixed is not None and mixed <= MOVED and passed_as_they_are(batch, calls)
        return measure_pairs(on.seeded, evaluated(on), batch, self.samples, self._named(calls), in_order=settled)

    def _turned(self, on: RunContext, calls: list[ModelCall]) -> Turned | None:
        def forward(seed: int, *, evaluating: bool = False) -> Forward:
            def look(batch: Any) -> tuple[Heard, Terms]:
                seed_everything(seed)
                with evaluating_mode(on.task.model) if evaluating else contextlib.nullcontext():
                    return on.forward(batch)

            return look

        if self._has_several_backwards(on):
            raise Unanswerable("a step of several backward passes reads other places in each")
        into_training(on.task.model)
        places = (forward, partial(forward, evaluating=True), on.task.batch, self._named(calls), on.seed)
        return measure_places(*places, heard=self.outputs.values(), in_order=passed_as_they_are(on.task.batch, calls))

    def _unfelt(self, on: RunContext, calls: list[ModelCall]) -> tuple[Unfelt, ...]:
        into_training(on.task.model)
        return () if on.step is not None else measure_unfelt(on.seeded, on.task.batch, self._named(calls))

    def _named(self, calls: list[ModelCall]) -> list[tuple[str, nn.Module]]:
        """What the loss calls: the models, or the parts of one that is not called as a whole."""
        return [(call.name, call.module) for call in calls] or list(self.context.task.model.named_children())

    def _has_several_backwards(self, on: RunContext) -> bool:
        steps = self.traced.steps if self.traced is not None else ()
        return on.step is not None and any(len(step.differentiated) > 1 for step in steps)

    def _chooses(self, on: RunContext) -> bool:
        """Whether a choice within the model leads to its outputs: they jump there, whatever their gradient."""

        def forward() -> Heard:
            seed_everything(on.seed)
            return on.forward()[0]

        into_training(on.task.model)
        return self.questions.ask("whether a choice leads to outputs", lambda: follows_choice(forward), otherwise=True)

    def _blind(self, on: RunContext, *, failed: bool) -> None:
        """The innermost part that has another slope than its gradient says, and what it is that makes it so."""
        if on.task.precision.enabled:
            raise Unanswerable("autocast rounds what is to be compared")
        if self._has_several_backwards(on):
            raise Unanswerable("of several backward passes each reads some of the outputs")
        into_training(on.task.model)
        slopes = innermost_slopes(on.seeded, on.task.model, self._at_start, failed=failed)
        if slopes and (cut := self._cut(on, slopes[-1].where)):
            home = cut[1].removeprefix("module ").partition(",")[0]
            if home in dict(on.task.model.named_modules()):
                slopes = measure_output_slopes(on.seeded, on.task.model, home)[-1:] or slopes
            self._know(cut=cut)
        self._know(blind=slopes)

    def _cut(self, on: RunContext, where: str) -> tuple[str, str] | None:
        held = {id(p) for p in on.task.model.get_submodule(where).parameters()}
        return what_cuts(self._tracer(on), on, held, self.context.optimizers)

    def _tracer(self, on: RunContext) -> StepTracer:
        return StepTracer(on.task.model, on.task.batch, self.samples, self.questions)


def _of(question: str, call: ModelCall) -> str:
    return f"{question} ({call.name})" if call.name else question
