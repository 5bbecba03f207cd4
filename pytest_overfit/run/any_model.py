"""Any model on any batch: one bounded run after which everything is as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Questions
from pytest_overfit.run.batch import fingerprint, freeze_batch
from pytest_overfit.run.bench import Bench, Inspector
from pytest_overfit.run.bounded import Outcome, Parts, make_record, read_every
from pytest_overfit.run.call import CallTask, as_loss, as_one_module, count_positional
from pytest_overfit.run.constant import Constant
from pytest_overfit.run.copied import copied_target
from pytest_overfit.run.device import choose_device_for, choose_threads
from pytest_overfit.run.elements import is_dense
from pytest_overfit.run.influence import probe_influence, without
from pytest_overfit.run.isolation import isolated, restored_process, seed_everything
from pytest_overfit.run.loop import Curves, Plan, evaluating, fit
from pytest_overfit.run.memory import memory_errors_told
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.optim import Freezing, GradientClipper, check_declarations, collect_optimizers, follow_device
from pytest_overfit.run.phases import PROBES, TRAINING, WARM_UP, tell_all
from pytest_overfit.run.place import Place
from pytest_overfit.run.record import Generated, RunRecord, Supervision
from pytest_overfit.run.sample import Drawn, draw
from pytest_overfit.run.shares import measure_shares, targets_read
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.subject import Adapter, Prepared, Subject, as_given, is_factory, with_data
from pytest_overfit.run.task import Precision, Task
from pytest_overfit.run.update import Detached, OwnUpdate, PlainUpdate, Update, optimizers_heard, own_step
from pytest_overfit.run.verify import verify
from pytest_overfit.run.watch import GradientWatch
from pytest_overfit.run.watchdog import Watchdog
from pytest_overfit.settings.settings import OverfitSettings
from pytest_overfit.untrusted.objects import defines

if TYPE_CHECKING:
    from pytest_overfit.run.ranks.group import Ranks

NEVER = 10**9
ALONE = Place()
NUDGE = 0.02


def run_any_model(
    given: Subject,
    settings: OverfitSettings,
    *,
    seed: int,
    name: str = "",
    observers: Sequence[Observer] = (),
    inspector: Inspector | None = None,
    adapter: Adapter = as_given,
    place: Place = ALONE,
    dog: Watchdog | None = None,
    questions: Questions | None = None,
) -> RunRecord:
    """Trains on one frozen batch and returns what happened.

    Modules, optimizers, schedulers, whatever the step and the loss hold, random generators and global switches come
    back as they were. Ctrl-C ends the run early: the record then says ``stop='interrupted'``.

    Args:
        adapter: makes parts that a run takes out of what was given, and takes back for good what it did for that.
        dog: limits the whole run, what comes before the first step included; the caller has entered its block.
        questions: keeps what could not be asked.

    Raises:
        OverfitError: what was given cannot be used, a limit is on a term that does not exist, or memory ran out.
    """
    threads = None if settings.threads == "keep" else choose_threads(settings.threads, workers=place.shares)
    ranks = place.ranks
    snapshot = Snapshot()
    dog = dog or Watchdog()
    questions = questions or Questions()
    tell_all((*observers, dog))(WARM_UP, "", None)
    with (
        isolated(seed=seed, threads=threads, deterministic=settings.deterministic),
        adapter(given, settings) as prepared,
    ):
        try:
            subject = with_data(prepared.subject)
            model = as_one_module(subject.model, subject.loss)
            choice = choose_device_for(model, settings.device, require_gpu=settings.require_gpu, turn=place.turn)
            device = choice.device
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            with memory_errors_told(device, where=name or type(model).__name__):
                snapshot.add(model)
                snapshot.add_reachable(*subject.callables)
                drawn = draw(subject.data)
                seeds_note = _seed_notes(is_factory(given.model), settings)
                notes = [*([choice.note] if choice.note else ()), *drawn.notes, *seeds_note, *prepared.notes]
                title = name or type(model).__name__
                drawn = drawn if ranks is None else replace(drawn, batch=ranks.agreed_batch(drawn.batch))
                parts = partial(_Run, settings=settings, drawn=drawn, snapshot=snapshot, seed=seed, name=title)
                run_of = partial(parts, dog=dog, questions=questions)
                trained, supervision = model, None
                if ranks is not None and ranks.shards_models:  # which may not fit as a whole: probed where it is
                    home = choose_device_for(model, "model").device
                    whole = _task(prepared, settings, model, freeze_batch(drawn.batch, home))
                    supervision = run_of(prepared, task=whole).probe()
                    shards, trained = ranks.sharded(subject, subject.model, device)
                    prepared = replace(prepared, subject=replace(subject, model=shards))
                task = _task(prepared, settings, trained.to(device), freeze_batch(drawn.batch, device))
                run = run_of(prepared, task=task, ranks=ranks)
                record = run.train(observers, notes, inspector, supervision)
                if ranks is not None and settings.keep_trained:
                    ranks.write_back(trained, model)
                return record
        finally:
            try:
                dog.over()
            finally:
                snapshot.restore(keep_trained=settings.keep_trained)


def _task(prepared: Prepared, settings: OverfitSettings, model: nn.Module, batch: Any) -> CallTask:
    subject = prepared.subject
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    loss = None if subject.step is not None and subject.loss is None else as_loss(subject.loss)
    amp = settings.amp or prepared.amp
    precision = Precision(amp.enabled, getattr(torch, amp.dtype)) if amp else Precision()
    given = subject.model if prepared.listened is None else prepared.listened(batch)
    return CallTask(model, given, loss, batch, device, precision)


class _Run:
    """The live parts of one run of any model."""

    def __init__(
        self,
        prepared: Prepared,
        settings: OverfitSettings,
        task: CallTask,
        drawn: Drawn,
        snapshot: Snapshot,
        dog: Watchdog,
        questions: Questions,
        *,
        seed: int,
        name: str,
        ranks: Ranks | None = None,
    ) -> None:
        self.questions, self.about_supervision = questions, questions.apart()
        self.prepared, self.subject, self.settings = prepared, prepared.subject, settings
        self.task, self.snapshot, self.dog, self.seed, self.ranks = task, snapshot, dog, seed, ranks
        self._materialise()
        check_declarations(task.model, settings.criteria)
        self.handed, self.optimizers = self._optimizers()
        self.watch = GradientWatch(task.model, None if ranks is None else ranks.total_of_shards)
        self.parts = Parts(
            name=name,
            seed=seed,
            planned_steps=settings.budget.max_steps or 1000,
            task=task,
            watch=self.watch,
            initial=self._initial(task.model),
            fingerprint=fingerprint(task.batch),
            differences=drawn.differences,
            draws=drawn.draws,
        )

    def train(
        self,
        observers: Sequence[Observer],
        notes: Sequence[str],
        inspector: Inspector | None,
        supervision: Supervision | None = None,
    ) -> RunRecord:
        settings, task, parts = self.settings, self.task, self.parts
        self.dog.on_phase("probing the loss", "", None)
        if (supervision := supervision or self.probe()) is not None:
            parts.supervision = without(supervision, self.prepared.discarded)
        self.dog.on_phase(WARM_UP, "", None)
        plan = Plan(
            max_steps=parts.planned_steps,
            max_seconds=settings.budget.max_seconds if (left := self.dog.left()) is None else left,
            hold_steps=settings.budget.hold_steps,
            alive=self.dog.alive,
            limits=settings.criteria.limits(),
            val_every=NEVER,
            gradient_every=settings.probes.gradient_every,
            read_every=read_every(task.device),
            strict_terms=True,
        )
        bench = self._bench(plan)
        bench.tell = tell_all((*observers, self.dog))
        if inspector is not None:
            inspector.before(bench)
        if self.ranks is None:
            update = self._update(task, self.watch, bench.start)
            watched = update if inspector is None else inspector.watch(update)
        else:
            from pytest_overfit.run.ranks.engine import SharedUpdate, shared_plan, shared_task

            shared = shared_task(self.ranks, bench, unused=bool(settings.criteria.unused))
            notes, plan = [*notes, shared.note], shared_plan(self.ranks, plan)
            update = self._update(shared.task, self.watch, bench.start, shared.given)
            watched = SharedUpdate(update if inspector is None else inspector.watch(update), shared)
        watched = constant = Constant(watched, task.batch, parts.fingerprint)
        seed_everything(self.seed)
        self.dog.on_phase(TRAINING, "", None)
        curves = fit(task, watched, plan, watch=self.watch, observers=observers)
        parts.optimizers = bench.optimizers = update.optimizers
        if inspector is not None and curves.stop != "interrupted":
            bench.tell(PROBES, "", None)
            inspector.trained(bench, curves)
        generated = self._generated(curves)
        verify(bench, curves, parts, constant, self.about_supervision, sharded=self._is_sharded)
        record = replace(make_record(parts, curves, Outcome(), notes), generated=generated)
        if inspector is not None and curves.stop != "interrupted":
            inspector.after(bench, record)
        return record

    @property
    def _is_sharded(self) -> bool:
        return self.ranks is not None and self.ranks.shards_models

    def _generated(self, curves: Curves) -> Generated | None:
        """What the trained model generates, where that is asked for; else, of a decoder, what it predicts."""
        wanted = self.settings.criteria.generates
        if curves.stop == "interrupted" or (self.prepared.generated is None and not wanted):
            return None
        if self.prepared.generated is None:
            raise OverfitError(
                f"{type(self.task.model).__name__} cannot be asked to generate",
                where="generates",
                allowed="a transformers model with a language-model head and generate(), or its Trainer",
                hint="keep_trained=True leaves the trained model: generate, and compare, with code of your own",
            )
        generated = self.prepared.generated
        with restored_process(), evaluating(self.task.model):
            said = generated(self.task.batch, True) if wanted else None
            ahead = self.questions.ask(
                "what the decoder predicts", lambda: generated(self.task.batch, False), otherwise=None
            )
        return ahead if said is None else said if ahead is None else replace(said, ahead=ahead.ahead)

    def _bench(self, plan: Plan) -> Bench:
        start = self.snapshot
        before = [(p, start.value(p)) for p in self.task.model.parameters()]
        if any(value is None or value.device != p.device for p, value in before):
            start = Snapshot()  # of the state now, on the device, lazy modules materialised
            for thing in (self.task.model, *self.optimizers):
                start.add(thing)
            start.add_reachable(*self.subject.callables)
        step = None
        if self.subject.step is not None:
            step = self._in_precision(own_step(self.subject.step, self.task.given, self.handed))
        return Bench(
            task=self.task,
            plan=plan,
            seed=self.seed,
            start=start,
            update=lambda task, watch: self._update(task, watch, start),
            optimizers=self.optimizers,
            initial=self.parts.initial,
            clip=GradientClipper(self.task.model, ()),
            frozen=Freezing(),
            step=step,
            callables=self.subject.callables,
            drawn=self.subject.data
            if callable(self.subject.data) and not defines(self.subject.data, "__iter__")
            else None,
            dog=self.dog,
        )

    def _update(self, task: Task, watch: GradientWatch, start: Snapshot, given: Any = None) -> Update:
        if self.subject.step is None:
            return PlainUpdate(
                task, self.optimizers, watch, clip=GradientClipper(self.task.model, ()), frozen=Freezing()
            )
        step = own_step(self.subject.step, self.task.given if given is None else given, self.handed)

        def found(optimizer: Optimizer) -> None:
            for snapshot in (self.snapshot, start):
                snapshot.add(optimizer)

        return OwnUpdate(task, self._in_precision(step), self.optimizers, watch, found)

    def probe(self) -> Supervision | None:
        """What the loss answers to, where the settings ask for it. Everything is put back before it returns.

        The parameters are nudged for it: behind a head that starts at zero nothing would answer to anything.
        """
        if self.settings.criteria.supervised is None or not self.settings.probes.sensitivity:
            return None
        parameters = list(self.task.model.parameters())
        _nudge(parameters)
        try:
            probed = self._probe_as_it_is()
        finally:
            with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
                for parameter in parameters:
                    if is_dense(parameter) and (value := self.parts.initial(parameter)) is not None:
                        parameter.copy_(value)
        if not probed.finite:
            probed = self._probe_as_it_is()
        unknown = Supervision({}, (), note="the loss is not finite from the start", finite=False)
        return probed if probed.finite else unknown

    def _probe_as_it_is(self) -> Supervision:
        step = None
        if self.subject.step is not None:  # it makes the verdict, whatever loss stands beside it
            step = own_step(self.subject.step, self.task.given, self.handed)
        inner = Snapshot()  # of the state now, on the device, lazy modules materialised
        for thing in (self.task.model, *self.optimizers):
            inner.add(thing)
        inner.add_reachable(*self.subject.callables)

        def heard(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            self.snapshot.add(optimizer)
            inner.add(optimizer)

        with optimizers_heard(heard):
            step = step and self._in_precision(step)
            asked = self.about_supervision
            probed = partial(probe_influence, self.task, inner, seed=self.seed, questions=asked)
            try:
                found = probed(step=step)
            except Detached:  # of a step that will say so itself, at once
                if self.task.loss is None:
                    return Supervision({}, (), note="the step has no gradient")
                found, step = probed(step=None), None
            keys = targets_read(found)
            shares = asked.ask(
                "how much of the targets the loss reads",
                lambda: measure_shares(self.task, inner, keys, seed=self.seed, step=step),
                otherwise={},
            )
            copied = asked.ask(
                "whether the target is in the input",
                lambda: copied_target(self.task.batch, found.inputs, keys),
                otherwise=None,
            )
            return replace(found, shares=shares, copied=copied)

    def _in_precision(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """AMP by option also around a step of the user's."""
        precision, device = self.task.precision, self.task.device
        if not precision.enabled:
            return step

        def within(batch: Any) -> Any:
            with precision.autocast(device):
                return step(batch)

        return within

    def _materialise(self) -> None:
        """Lazy modules get their shapes from one forward pass, so that an optimizer can be built."""
        lazy = any(is_lazy(p) for p in self.task.model.parameters())
        if lazy and self.task.loss is not None:
            with torch.no_grad():
                self.task.forward(self.task.batch)
            self.task.heard.clear()

    def _optimizers(self) -> tuple[Any, list[Optimizer]]:
        subject = self.subject
        if subject.optimizer is None and subject.step is not None and not _wants_optimizer(subject.step):
            return None, []
        trainable = [p for p in self.task.model.parameters() if p.requires_grad]
        if not trainable and subject.optimizer is None:
            return None, []
        handed, found = collect_optimizers(subject.optimizer, trainable)
        for optimizer in found:
            self.snapshot.add(optimizer)
            follow_device(optimizer)
        return handed, found

    def _initial(self, model: nn.Module) -> Callable[[Tensor], Tensor | None]:
        """Parameters as they are before training: the snapshot's, or a copy where they have just got their shape."""
        shaped = [p for p in model.parameters() if not is_lazy(p)]
        late = {id(p): p.detach().clone() for p in shaped if self.snapshot.value(p) is None}
        return lambda parameter: late.get(id(parameter), self.snapshot.value(parameter))


def _nudge(parameters: Sequence[nn.Parameter]) -> None:
    """Moves every element a little, in proportion to its tensor's size; those of a zero tensor too."""
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        for parameter in parameters:
            if not is_lazy(parameter) and is_dense(parameter) and parameter.is_floating_point():
                size = parameter.square().mean().sqrt()
                parameter.add_(torch.randn_like(parameter) * torch.where(size == 0, NUDGE, NUDGE * size))


def _wants_optimizer(step: Callable[..., Any]) -> bool:
    return count_positional(step, 3) == 3


def _seed_notes(anew: bool, settings: OverfitSettings) -> Iterator[str]:
    if len(settings.seeds) > 1 and not anew:
        yield "every seed starts from the same weights: pass a factory instead of a model to draw new ones"
