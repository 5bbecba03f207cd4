"""Run, judge, result: the package's verbs for a config and for any model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.diagnose.answers import answers, still_open
from pytest_overfit.diagnose.call_site import Asked, asked_of, callers, with_model
from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.custom_rules import custom_family, installed_family
from pytest_overfit.diagnose.defects import judge_defects
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.inspector import RunInspector
from pytest_overfit.diagnose.lines_to_change import with_lines
from pytest_overfit.diagnose.rank import find_causes
from pytest_overfit.diagnose.reached_modules import Influence
from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Questions
from pytest_overfit.integrations.adapt import adapt
from pytest_overfit.judge.finding import ECHO, Finding
from pytest_overfit.judge.stopped import interrupted, unjudged
from pytest_overfit.judge.verdict import accepts, judge
from pytest_overfit.result import OverfitResult, advised, of_seeds
from pytest_overfit.run import subject as subjects
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.make_record import Outcome, record_of
from pytest_overfit.run.place import Place
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.runner import Callbacks, run
from pytest_overfit.run.sample import Sample, drawn_once
from pytest_overfit.run.subject import NOT_GIVEN, Adapter, Schedule, Subject, is_factory
from pytest_overfit.settings.call_settings import settings_of_call
from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.settings.settings import Budget, OverfitSettings

ALONE = Place()
TWO_VIEW_KEYS = frozenset({"depths", "extrinsics", "intrinsics"})  # of a batch of which the geometry is checked
SHARDED = "the model is sharded over ranks (strategy fsdp): run it once with strategy ddp, or in one process"

if TYPE_CHECKING:
    from pytest_overfit.run.observer import Observer
    from pytest_overfit.trainer.config import OverfitConfig


def run_overfit(
    model: Any,
    data: Any = NOT_GIVEN,
    loss: Any = None,
    *,
    optimizer: Any = None,
    step: Callable[..., Any] | None = None,
    val_data: Any = None,
    schedule: Schedule | Mapping[str, Schedule] | None = None,
    criteria: Criteria | Mapping[str, Any] | None = None,
    budget: Budget | Mapping[str, Any] | None = None,
    rules: Any = (),
    **settings: Any,
) -> OverfitResult:
    """Proves that a model can memorise one batch: trains on it for a bounded number of steps and judges the run.

    Example:
        >>> import torch
        >>> from torch.nn import functional as F
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        >>> batch = torch.randn(8, 4), torch.randn(8, 1)
        >>> result = run_overfit(net, batch, F.mse_loss, optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
        >>> result.passed, result.finding("finite").passed
        (True, True)

    Nothing is raised for a criterion that is missed: ``result.passed`` is False and ``result.check()`` raises. Model,
    optimizer, schedulers, random generators and switches come back as they were.

    Args:
        model: a module, a mapping or list of modules, or a factory without arguments that builds one; a factory is
            called anew for every seed. A LightningModule and a ``transformers.Trainer`` bring their own step, loss and
            optimizer (docs/trainers.md).
        data: one batch (any nest of tensors), a DataLoader or other iterable of batches, or a callable that returns
            the next batch. Loaders and callables are drawn several times and compared; the first batch is
            trained on. A Trainer, or a LightningModule with ``train_dataloader``, needs none.
        loss: ``loss(model, batch)``, forward pass and loss. It returns a scalar, a mapping with ``objective`` and the
            terms it is made of, or ``(scalar, mapping)``. A criterion such as ``nn.CrossEntropyLoss()`` takes an
            ``(input, target)`` batch. None: the model returns its own loss, or a mapping of losses to be summed.
        optimizer: an optimizer, a mapping or list of them, or a factory called with the trainable parameters. None:
            AdamW with a learning rate of 1e-3 and no weight decay.
        step: the user's own train step (forward, backward, update), called with as many of (model, batch, optimizer)
            as it takes; it returns what a loss returns.
        val_data: a batch, or what gives one as ``data`` does: evaluated on now and then, and compared with training
            where ``train_val=True`` asks for it.
        schedule: the learning rate as a function of the progress from 0 to 1, in place of the optimizer's own; or a
            mapping of such functions, ``{"lr": ..., "weight_decay": ...}``.
        criteria: limits by term name and the switches, as a mapping of the settings below or a ``Criteria`` record.
        budget: ``max_steps``, ``max_seconds``, ``hold_steps``, as a mapping or a ``Budget`` record.
        rules: functions from ``Evidence`` to causes, asked beside ours (docs/causes.md).
        settings: every other keyword of ``@pytest.mark.overfit`` (docs/settings.md): ``seeds=[0, 1, 2]``,
            ``device="cuda"``, ``amp="bfloat16"``, ``twins=["resume"]`` (docs/twins.md); limits by term name too.

    Raises:
        ConfigError: a setting is unknown or wrong; all problems in one error.
        OverfitError: what was given cannot be used, a limit is on a term that the loss does not give, or memory ran
            out. Whatever the model, the loss or the step raise comes through as it is.
    """
    parts, schedules = subjects.twin_parts(settings), subjects.schedules_of(schedule)
    subject = Subject(model, data, loss, optimizer, step, val_data=val_data, schedules=schedules, twins=parts)
    return run_subject(subject, settings_of_call(criteria, budget, settings), rules=rules)


def run_config(
    config: OverfitConfig | str | Path,
    model: Any = None,
    sample: Sample | None = None,
    *,
    loss: Any = None,
    optimizer: Any = None,
    step: Callable[..., Any] | None = None,
    rules: Any = (),
    observers: Callable[[int], Sequence[Observer]] = lambda seed: (),
    place: Place = ALONE,
    twins: subjects.TwinParts = subjects.NO_PARTS,
) -> OverfitResult:
    """Trains what a config names on its one sample, once per seed, and judges it by the config's criteria.

    Example:
        >>> run_config("quick.yaml").passed                                          # doctest: +SKIP
        True

    Args:
        config: what ``load_config`` gives, or the path of a config file.
        model: a module, or a factory that is called anew for every seed; None: the config's, built for every seed. A
            LightningModule and a ``transformers.Trainer`` bring their own step, loss and optimizer.
        sample: batches as the model gets them; None: drawn from the data that the config names.
        loss: ``loss(predictions, batch)``, in place of the config's.
        optimizer, step: as of ``run_overfit``, in place of the config's.
        rules: of the user's own, asked for causes beside ours.
        observers: who follows the run of a seed.
        place: of this process among those that share its machine, or its run.
        twins: what some twins need, such as your own ``save`` and ``load``.

    Raises:
        ConfigError: what the config names cannot be built.
        OverfitError: as ``run_overfit``.
    """
    from pytest_overfit.trainer.config_changes import ConfigChanges
    from pytest_overfit.trainer.config_subject import adapter_of, settings_of, subject_of
    from pytest_overfit.two_view.application import TWO_VIEW
    from pytest_overfit.two_view.diagnose.source_causes import source_family
    from pytest_overfit.two_view.from_config import sample_of

    if isinstance(config, (str, Path)):
        from pytest_overfit.trainer.loading import load_config

        config = load_config(config)
    for name, given in (("loss", loss), ("step", step)):
        if given is not None and not callable(given):
            raise OverfitError(f"a {type(given).__name__}", where=name, allowed="something that can be called")
    drawn = sample_of(config) if sample is None else sample
    subject = replace(subject_of(config, model, drawn, loss=loss, optimizer=optimizer, step=step), twins=twins)
    asked = Asked(config=ConfigChanges(config))
    adapter, settings = adapter_of(config, adapt, TWO_VIEW), settings_of(config)
    rules = (custom_family(rules), *source_family(drawn))
    return run_subject(subject, settings, adapter=adapter, observers=observers, rules=rules, place=place, asked=asked)


def run_subject(
    subject: Subject,
    settings: OverfitSettings,
    *,
    adapter: Adapter = adapt,
    observers: Callable[[int], Sequence[Observer]] = lambda seed: (),
    rules: Any = (),
    place: Place = ALONE,
    asked: Asked | None = None,
) -> OverfitResult:
    """Runs a subject, once per seed, and judges it by the settings' criteria: the path of every way of asking.

    Args:
        adapter: makes a subject that can be run out of this one.
        observers: who follows the run of a seed.
        rules: of the user's own, asked for causes beside ours.
        place: of this process among those that share its machine, or its run.
        asked: what a config has to be changed by.
    """
    from pytest_overfit.twins.asked import asked_twins, with_parts

    settings = with_parts(subject, settings)
    seeds, own, codes = settings.seeds or (0,), custom_family(rules), callers()
    given = subject.optimizer is not None and not callable(subject.optimizer)
    if len(seeds) > 1 and is_factory(subject.model) and given:
        allowed = "a factory called with the parameters: every seed builds a new model"
        raise OverfitError("an optimizer beside a model factory", where="optimizer", allowed=allowed)

    if len(seeds) > 1:
        subject = replace(subject, data=drawn_once(subject.data), val_data=drawn_once(subject.val_data))

    def run_seed(seed: int) -> OverfitResult:
        questions = Questions()
        inspector = inspect(settings, questions, place, own)
        twins = asked_twins(settings, questions)
        callbacks = Callbacks((*observers(seed), *place.observers), inspector, twins, _accept(settings), adapter)
        kept = replace(settings, keep_trained=settings.keep_trained and seed == seeds[-1])  # all start alike
        record = run(subject, kept, seed=seed, place=place, callbacks=callbacks, questions=questions)
        if record.stop == "hung":
            return judged(record, settings, None, Questions(), place)
        changed = partial(asked_of, codes=codes) if asked is None else partial(with_model, asked)
        return judged(record, settings, inspector, questions, place, asked=lambda model: changed(subject, model))

    return _over_seeds(seeds, _together(run_seed, place, settings, subject.name), settings.pass_at_least)


def _accept(settings: OverfitSettings) -> Callable[[Outcome, Curves], bool]:
    """Whether a model whose limits have held agrees with its evaluation mode, and with the ground truth."""
    return lambda outcome, curves: accepts(record_of(outcome, curves), settings.criteria)


def _together(
    run_seed: Callable[[int], OverfitResult], place: Place, settings: OverfitSettings, name: str
) -> Callable[[int], OverfitResult]:
    """The run of a seed, which all ranks begin and end together, with the first rank's verdict on all."""
    ranks, limit = place.ranks, settings.budget.max_seconds
    if ranks is None:
        return run_seed

    def shared(seed: int) -> OverfitResult:
        from pytest_overfit.report.record.codec import result_from_json, result_to_json

        with ranks.run(name, settings.distributed, seconds=limit):
            return ranks.share(run_seed(seed), result_to_json, result_from_json)

    return shared


def inspect(settings: OverfitSettings, questions: Questions, place: Place, custom: Family) -> RunInspector | None:
    """Who looks into a run; None where the settings switch that off, and on all ranks but one that holds the model.

    Args:
        custom: the user's own causes.
    """
    if not settings.diagnose:
        return None
    if not _is_inspected(settings, place):
        questions.leave_out("the diagnosis", SHARDED)
        return None
    return RunInspector(
        settings.criteria,
        partial(findings_of, settings=settings),
        questions,
        seconds=settings.diagnose_seconds,
        applications=application_families,
        custom=(custom, installed_family()),
    )


def application_families(batch: Any) -> tuple[Family, ...]:
    """The causes that a batch of an application asks for; without such a batch nothing of it is imported."""
    if not isinstance(batch, Mapping) or not TWO_VIEW_KEYS.issubset(batch):
        return ()
    from pytest_overfit.two_view.diagnose.view_causes import FAMILY

    return (FAMILY,)


def findings_of(record: RunRecord, settings: OverfitSettings) -> tuple[Finding, ...]:
    """What the numbers of a record say; defects are judged by its causes."""
    return judge(record, settings.criteria, hold_steps=settings.budget.hold_steps)


def _is_inspected(settings: OverfitSettings, place: Place) -> bool:
    return place.ranks is None or (place.ranks.is_first and settings.distributed.strategy == "ddp")


def judged(
    record: RunRecord,
    settings: OverfitSettings,
    inspected: RunInspector | None,
    questions: Questions,
    place: Place = ALONE,
    *,
    asked: Callable[[Any], Asked] = lambda model: Asked(),
) -> OverfitResult:
    """Findings and causes of one record; ``asked``: of the trained model, where a user can change something."""
    criteria = settings.criteria
    evidence = None if inspected is None else inspected.evidence
    doubtful = any(each.ours for each in questions.not_asked)
    findings = findings_of(record, settings) if evidence is None else evidence.findings
    causes: tuple[Cause, ...] = ()
    if inspected is not None and evidence is not None:
        given, rules = inspected.applications, [rule for family in inspected.custom for rule in family.rules]
        causes = named = find_causes(evidence, families=given, rules=rules, allowed=criteria.allow, questions=questions)
        model, what = inspected.context.task.model, "the lines to change"
        if named:
            causes = questions.ask(what, lambda: with_lines(named, evidence, asked(model)), otherwise=named)
    told = (
        ()
        if evidence is None
        else questions.ask("what the run answered", lambda: answers(evidence, causes), otherwise=())
    )
    if criteria.defects and settings.diagnose:
        found = judge_defects(
            causes,
            allow=criteria.allow,
            missed=[finding.name for finding in findings if finding.missed],
            unlooked=_unlooked(record, inspected, _is_inspected(settings, place)),
            not_asked=questions.not_asked,
            doubtful=doubtful,
        )
        first = next((finding for finding in findings if finding.missed and finding.hint_stands), None)
        if record.stop == "max_seconds" and first is not None and not found.judged:
            found = replace(found, observed=f"{ECHO}{first.name} (cut short)")  # its time was that of the run
        if record.stop == "hung":
            found = unjudged("defects", *[finding.name for finding in findings if finding.missed][:1])
        findings = (*findings, found)
    seen = None if evidence is None else evidence.fact(Influence)
    findings = interrupted(record, findings) if record.stop == "interrupted" else advised(findings, causes)
    return OverfitResult(
        record,
        findings,
        causes=causes,
        evidence=evidence,
        not_asked=still_open(questions.not_asked, causes),
        answers=told,
        influence=() if seen is None else seen.reaches,
    )


def _unlooked(record: RunRecord, inspected: RunInspector | None, may_be: bool) -> str:
    """Why the probes have not looked, or not at everything; empty where they have."""
    if record.stop == "interrupted":
        return "the run was interrupted"
    if not may_be:
        return SHARDED
    if inspected is None or inspected.evidence is None:
        return "nothing was trained"
    return inspected.cut


def _over_seeds(seeds: Sequence[int], run: Callable[[int], OverfitResult], needed: int | None) -> OverfitResult:
    results = []
    for seed in seeds:
        results.append(run(seed))
        if results[-1].interrupted or results[-1].record.stop == "hung":
            break
    return results[0] if len(seeds) == 1 else of_seeds(results, needed=needed or len(seeds))
