"""One config, one model, one pair: the whole bounded run, from the first probe to the record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from pytest_overfit.errors.asking import Questions, users_code
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.run.accumulate import Accumulated, inner_loss
from pytest_overfit.run.batch import fingerprint, freeze_batch
from pytest_overfit.run.bench import Bench, Inspector
from pytest_overfit.run.bounded import Outcome, Parts, make_record, read_every
from pytest_overfit.run.columns import is_extra
from pytest_overfit.run.constant import Constant
from pytest_overfit.run.device import choose_device_for, choose_threads
from pytest_overfit.run.isolation import isolated, seed_everything
from pytest_overfit.run.loop import Curves, Plan, evaluate, evaluating, fit
from pytest_overfit.run.memory import memory_errors_told
from pytest_overfit.run.metrics import compare_predictions, confidence_of
from pytest_overfit.run.observer import Observer
from pytest_overfit.run.optim import GradientClipper, build_optimizer, check_declarations, collect_optimizers, freeze
from pytest_overfit.run.parts import LR_SCHEDULE, WEIGHT_DECAY_SCHEDULE, Loss, at_home, build_loss, schedule_of
from pytest_overfit.run.phases import PROBES, TRAINING, WARM_UP, tell_all
from pytest_overfit.run.pictures import take_pictures
from pytest_overfit.run.place import Place
from pytest_overfit.run.probe import answers_of_step, probe_supervision
from pytest_overfit.run.record import Evaluation, RunRecord
from pytest_overfit.run.sample import Sample
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.subject import Subject
from pytest_overfit.run.task import Precision, Task, TwoViewTask
from pytest_overfit.run.update import OwnUpdate, PlainUpdate, Update, own_step
from pytest_overfit.run.verify import verify
from pytest_overfit.run.watch import GradientWatch
from pytest_overfit.run.watchdog import Watchdog
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.settings import AmpConfig
from pytest_overfit.trainer.config import OverfitConfig

if TYPE_CHECKING:
    from pytest_overfit.run.ranks.group import Ranks

ALONE = Place()
Accept = Callable[[Outcome], bool]


def run_config(
    config: OverfitConfig,
    subject: Subject,
    *,
    limits: Mapping[str, Limit],
    accept: Accept = lambda outcome: True,
    observers: Sequence[Observer] = (),
    inspector: Inspector | None = None,
    place: Place = ALONE,
    dog: Watchdog | None = None,
    questions: Questions | None = None,
) -> RunRecord:
    """Trains a model on one frozen sample as the config says, and returns what happened.

    The model, its gradients and flags, and every random generator come back as they were. Ctrl-C ends the run early:
    the record then says ``stop='interrupted'``.

    Args:
        config: budget, optimizer, precision, freezing.
        subject: a module that is called as ``model(images=...)``, and the ``Sample`` to train on; where its loss or
            its optimizer is None, the config's is built.
        limits: criterion name -> what its term must reach; the run may stop once all have held.
        accept: asked when the limits have held, with the model's outcome; False lets the run go on.
        observers: told of every step.
        place: of this process among those that share its machine, or its run.
        dog: limits the whole run; the caller has entered its block.
        questions: keeps what could not be asked.
    """
    dog, questions = dog or Watchdog(), questions or Questions()
    settings, model = config.overfit, subject.build()
    tell_all((*observers, dog))(WARM_UP, "", None)
    choice = choose_device_for(model, settings.device, require_gpu=settings.require_gpu, turn=place.turn)
    threads = None if settings.threads == "keep" else choose_threads(settings.threads, workers=place.shares)
    ranks = place.ranks
    snapshot = Snapshot()
    with isolated(seed=config.seed, threads=threads, deterministic=settings.deterministic):
        try:
            with (
                at_home(config, group=not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())),
                memory_errors_told(choice.device, where=config.exp_name),
            ):
                criterion = subject.loss or build_loss(config)
                if config.trainer is not None and config.trainer.accum_steps > 1:
                    criterion = Accumulated(criterion, config.trainer.accum_steps)
                snapshot.add(model)
                snapshot.add_reachable(inner_loss(criterion), *subject.callables)
                trained = model
                if ranks is not None and ranks.shards_models:
                    _, trained = ranks.sharded(subject, model, choice.device)
                trained = trained.to(choice.device)
                run = _Run(config, trained, subject.data, criterion, choice.device, snapshot, dog, questions, ranks)
                curves = run.train(subject, limits, accept, observers, inspector)
                with questions.asking("pictures of the predictions"):
                    run.show(curves, observers)
                record = run.record(curves, notes=choice.note)
                if ranks is not None and settings.keep_trained:
                    ranks.write_back(trained, model)
                if inspector is not None and run.bench is not None and curves.stop != "interrupted":
                    inspector.after(run.bench, record)
                return record
        finally:
            try:
                dog.over()
            finally:
                snapshot.restore(keep_trained=settings.keep_trained)


class _Run:
    """The live parts of one run; ``record`` turns them into plain numbers."""

    def __init__(
        self,
        config: OverfitConfig,
        model: nn.Module,
        sample: Sample,
        loss: Loss,
        device: torch.device,
        snapshot: Snapshot,
        dog: Watchdog,
        questions: Questions,
        ranks: Ranks | None,
    ) -> None:
        self.about_supervision = questions.apart()
        self.config, self.snapshot, self.dog, self.sample, self.ranks = config, snapshot, dog, sample, ranks
        self.initial = snapshot.value if ranks is None else ranks.initial_of(model, snapshot.value)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        batch = freeze_batch(sample.train if ranks is None else ranks.agreed_batch(sample.train), device)
        val = sample.val if ranks is None else ranks.agreed_batch(sample.val)
        val = None if val is None else freeze_batch(val, device)
        amp: AmpConfig = config.overfit.amp or config.amp
        self.task = TwoViewTask(model, loss, batch, val, device, Precision(amp.enabled, getattr(torch, amp.dtype)))
        frozen = freeze(model, config.frozen_module_names)
        check_declarations(model, config.overfit.criteria)
        self.clip = GradientClipper(model, config.gradient_clip)
        self.watch = GradientWatch(model, None if ranks is None else ranks.total_of_shards)
        self.parts = Parts(
            name=config.exp_name,
            seed=config.seed,
            planned_steps=config.planned_steps,
            task=self.task,
            watch=self.watch,
            initial=self.initial,
            fingerprint=fingerprint(batch),
            differences=sample.differences,
            draws=sample.draws,
            randomness=(*config.randomness, *sample.randomness),
            frozen=frozen,
            supervision=probe_supervision(self.task, self.about_supervision)
            if config.overfit.probes.sensitivity
            else None,
        )
        self.outcome: Outcome | None = None
        self.loss_names: tuple[str, ...] = ()
        self.bench: Bench | None = None
        self.constant: Constant | None = None

    def train(
        self,
        subject: Subject,
        limits: Mapping[str, Limit],
        accept: Accept,
        observers: Sequence[Observer],
        inspector: Inspector | None,
    ) -> Curves:
        config = self.config
        if not any(p.requires_grad for p in self.task.model.parameters()):
            return Curves(stop="no_trainable_parameters")
        handed, optimizers = self._optimizers(subject.optimizer)

        def accepted(curves: Curves) -> bool:
            self.outcome = self.look(curves)
            return accept(self.outcome)

        plan = Plan(
            max_steps=config.planned_steps,
            max_seconds=config.overfit.budget.max_seconds if (left := self.dog.left()) is None else left,
            hold_steps=config.overfit.budget.hold_steps,
            alive=self.dog.alive,
            limits=limits,
            val_every=config.val_epoch_freq * config.overfit.steps_per_epoch,
            gradient_every=config.overfit.probes.gradient_every,
            read_every=read_every(self.task.device),
            lr=schedule_of(config.lr_schedule, LR_SCHEDULE),
            weight_decay=schedule_of(config.weight_decay_schedule, WEIGHT_DECAY_SCHEDULE),
            accept=accepted,
        )
        own = own_step(subject.step, self.task.model, handed) if subject.step is not None else None
        self.bench = bench = self._bench(plan, subject, optimizers, own)
        bench.tell = tell_all((*observers, self.dog))
        if own is not None and self.parts.supervision is not None:
            answers = self.about_supervision.ask(
                "what the step answers to", lambda: self._answers_of_step(bench), otherwise={}
            )
            self.parts.supervision = replace(self.parts.supervision, answers=answers)
        if inspector is not None:
            inspector.before(bench)
        if self.ranks is None:
            update = bench.update(self.task, self.watch)
            watched = update if inspector is None else inspector.watch(update)
        else:
            from pytest_overfit.run.ranks.engine import SharedUpdate, shared_plan, shared_task

            shared = shared_task(self.ranks, bench, unused=bool(config.overfit.criteria.unused))
            self.parts.notes, plan = (shared.note,), shared_plan(self.ranks, plan)
            own = own_step(subject.step, shared.given, handed) if subject.step is not None else None
            update = self._bench(plan, subject, optimizers, own).update(shared.task, self.watch)
            watched = SharedUpdate(update if inspector is None else inspector.watch(update), shared)
        watched = self.constant = Constant(watched, self.task.batch, self.parts.fingerprint)
        seed_everything(config.seed)
        self.dog.on_phase(TRAINING, "", None)
        curves = fit(self.task, watched, plan, watch=self.watch, observers=observers)
        self.parts.optimizers = bench.optimizers = update.optimizers
        if inspector is not None and curves.stop != "interrupted":
            bench.tell(PROBES, "", None)
            inspector.trained(bench, curves)
        return curves

    def _answers_of_step(self, bench: Bench) -> dict[str, dict[str, float]]:
        def found(optimizer: Optimizer) -> None:
            self.snapshot.add(optimizer)
            bench.start.add(optimizer)

        return answers_of_step(bench, found)

    def _optimizers(self, optimizer: Any) -> tuple[Any, list[Optimizer]]:
        trainable = [p for p in self.task.model.parameters() if p.requires_grad]
        if optimizer is None:
            built = build_optimizer(self.config.optimizer, trainable)
            handed, optimizers = built, [built]
        else:
            handed, optimizers = collect_optimizers(optimizer, trainable)
        for each in optimizers:
            self.snapshot.add(each)
        return handed, optimizers

    def _bench(
        self, plan: Plan, subject: Subject, optimizers: list[Optimizer], own: Callable[[Any], Any] | None
    ) -> Bench:
        start = Snapshot()  # of the state now: on the device, and frozen as the config says
        for thing in (self.task.model, *optimizers):
            start.add(thing)
        start.add_reachable(inner_loss(self.task.criterion), *subject.callables)

        def found(optimizer: Optimizer) -> None:
            self.snapshot.add(optimizer)
            start.add(optimizer)

        def update(task: Task, watch: GradientWatch) -> Update:
            if own is None:
                return PlainUpdate(task, optimizers, watch, clip=self.clip, frozen=self.parts.frozen)
            return OwnUpdate(task, own, optimizers, watch, found)

        return Bench(
            task=self.task,
            plan=plan,
            seed=self.config.seed,
            start=start,
            update=update,
            optimizers=optimizers,
            initial=self.initial,
            clip=self.clip,
            frozen=self.parts.frozen,
            step=own,
            dog=self.dog,
            callables=(inner_loss(self.task.criterion), *subject.callables),
        )

    def look(self, curves: Curves) -> Outcome:
        """The model as it is now, in evaluation mode, against training and against the ground truth."""
        task = self.task
        with evaluating(task.model):
            predictions = task.predict(task.batch)
            frames = compare_predictions(predictions, task.batch)
            if self.config.trainer is not None and not self.loss_names:
                given = task.criterion(predictions, task.batch)
                self.loss_names = tuple(map(str, given)) if isinstance(given, Mapping) else ("a scalar",)
        evaluation = None
        if task.val_batch is not None and curves.steps:
            train = {name: value for name, value in curves.steps[-1].items() if not is_extra(name)}
            evaluation = Evaluation(train=train, val=evaluate(task, task.val_batch))
        keys = tuple(map(str, predictions)) if isinstance(predictions, Mapping) else (type(predictions).__name__,)
        return Outcome(evaluation, frames, keys)

    def show(self, curves: Curves, observers: Sequence[Observer]) -> None:
        """Gives the observers what the model predicts now, in evaluation mode: pictures, and its confidence where no
        validation has told it.
        """
        seeing = [o for o in observers if self.config.logging.log_visuals or o.wants_pictures]
        collective = self.ranks is not None and self.ranks.shards_models  # where all ranks look, or none does
        if not collective and not seeing and not (observers and self.task.val_batch is None):
            return
        with evaluating(self.task.model), users_code():
            predictions = self.task.predict(self.task.batch)
        confidence = confidence_of(predictions) if self.task.val_batch is None else {}
        for observer in observers if confidence else ():
            observer.on_numbers(len(curves.steps), confidence)
        if seeing and (pictures := take_pictures(predictions, self.task.batch)):
            for observer in seeing:
                observer.on_pictures(pictures)

    def record(self, curves: Curves, *, notes: str | None) -> RunRecord:
        """Everything as plain numbers. Takes a last look at the model unless the run ended with one."""
        outcome = self.outcome if curves.stop == "passed" and self.outcome else self.look(curves)
        if self.bench is not None and self.constant is not None:
            sharded = self.ranks is not None and self.ranks.shards_models
            verify(self.bench, curves, self.parts, self.constant, self.about_supervision, sharded=sharded)
        said = (
            *_notes(notes, self.clip),
            *self._unlogged(curves),
            *self.sample.notes,
            *self.parts.notes,
            *self.config.notes,
        )
        return make_record(self.parts, curves, outcome, said)

    def _unlogged(self, curves: Curves) -> Iterator[str]:
        """Scalars that the trainer is told to log and the loss does not give: it leaves them out without a word."""
        trainer = self.config.trainer
        if trainer is None or not curves.steps or not self.loss_names:
            return
        if absent := [name for name in trainer.logged if name not in self.loss_names]:
            named = "; the loss calls it objective" if "loss_objective" in absent else ""
            yield f"logging.scalar_keys_to_log.train: the loss gives no {', '.join(absent)}{named}"
        if "objective" not in self.loss_names:
            yield f"the loss gives no objective, which trainers minimise: {', '.join(self.loss_names)}"


def _notes(note: str | None, clip: GradientClipper) -> Iterator[str]:
    if note:
        yield note
    if clip.unclaimed:
        yield f"optim.gradient_clip: no group clips {shorten(clip.unclaimed)}"
