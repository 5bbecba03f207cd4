"""Run, judge, result: the package's verbs for a config and for any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_overfit.diagnose.defects import judge_defects
from pytest_overfit.diagnose.gather.inspector import Inspected
from pytest_overfit.diagnose.own_rules import checked, installed_rules
from pytest_overfit.diagnose.rank import Rule, find_causes
from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.errors.asking import Questions
from pytest_overfit.integrations.adapt import adapt
from pytest_overfit.judge.agreement import judge_prediction, judge_train_val
from pytest_overfit.judge.criteria import judge
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.hang import unjudged
from pytest_overfit.judge.seeds import combine
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.any_model import run_any_model
from pytest_overfit.run.bounded import Outcome, hung_record
from pytest_overfit.run.execute import run_config
from pytest_overfit.run.isolation import isolated
from pytest_overfit.run.parts import Loss, build_model
from pytest_overfit.run.phases import WARM_UP
from pytest_overfit.run.place import Place
from pytest_overfit.run.record import RunRecord
from pytest_overfit.run.sample import Sample
from pytest_overfit.run.subject import NOT_GIVEN, Subject, is_factory
from pytest_overfit.run.watchdog import Hung, Watchdog
from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.settings.criteria_section import LEARNING, NOTHING_ASKED
from pytest_overfit.settings.ladder import layer_of_keywords, resolve_settings
from pytest_overfit.settings.settings import Budget, OverfitSettings

ALONE = Place()
SHARDED = "the model is sharded over ranks (strategy fsdp): run it once with strategy ddp, or in one process"
DEFAULT_STEPS = 1000

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
        criteria: limits by term name and the switches, as a mapping of the settings below or a ``Criteria`` record.
        budget: ``max_steps``, ``max_seconds``, ``hold_steps``, as a mapping or a ``Budget`` record.
        rules: functions from ``Evidence`` to causes, asked beside ours (docs/causes.md).
        settings: every other keyword of ``@pytest.mark.overfit`` (docs/settings.md): ``seeds=[0, 1, 2]``,
            ``device="cuda"``, ``amp="bfloat16"``, ``unused=["pooler.*"]``, ...; limits by term name here too.

    Raises:
        ConfigError: a setting is unknown or wrong; all problems in one error.
        OverfitError: what was given cannot be used, a limit is on a term that the loss does not give, or memory ran
            out. Whatever the model, the loss or the step raise comes through as it is.
    """
    return overfit_model(
        Subject(model, data, loss, optimizer, step), settings_of_call(criteria, budget, settings), name="", rules=rules
    )


def settings_of_call(
    criteria: Criteria | Mapping[str, Any] | None,
    budget: Budget | Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
) -> OverfitSettings:
    """The settings of one call, records and mappings alike.

    Raises:
        ConfigError: a keyword is unknown, given twice, or has a wrong value.
    """
    flat = dict(keywords)
    for name, given, kind in (("criteria", criteria, Criteria), ("budget", budget, Budget)):
        if given is None or isinstance(given, kind):
            continue
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"a {type(given).__name__}", where=name, allowed=f"a mapping, or a {kind.__name__} record"
            )
        if twice := sorted(flat.keys() & given.keys()):
            raise ConfigError(f"{twice[0]} is given twice", where=name, allowed="once, here or as a keyword")
        flat.update(given)
    settings = resolve_settings([layer_of_keywords("run_overfit", flat)], where="run_overfit").settings
    if isinstance(criteria, Criteria):
        settings = replace(settings, criteria=criteria)
    if isinstance(budget, Budget):
        settings = replace(settings, budget=budget)
    if not settings.criteria.asks_for_learning():
        raise ConfigError(NOTHING_ASKED, where="criteria", allowed=LEARNING)
    return settings


def overfit_model(
    subject: Subject,
    settings: OverfitSettings,
    *,
    name: str,
    observers: Callable[[int], Sequence[Observer]] = lambda seed: (),
    rules: Any = (),
    place: Place = ALONE,
) -> OverfitResult:
    """Runs what the user handed over, once per seed, and judges it by the settings' criteria.

    Args:
        observers: who follows the run of a seed.
        rules: of the user's own, asked for causes beside ours.
        place: of this process among those that share its machine, or its run.
    """
    seeds, asked = settings.seeds or (0,), checked(rules)
    if len(seeds) > 1 and is_factory(subject.model) and _is_instance(subject.optimizer):
        raise OverfitError(
            "an optimizer beside a model factory",
            where="optimizer",
            allowed="a factory called with the parameters: every seed builds a new model",
        )

    def run(seed: int, dog: Watchdog) -> OverfitResult:
        questions = Questions()
        inspected = inspect(settings, questions, place)
        record = run_any_model(
            subject,
            settings,
            seed=seed,
            name=name,
            observers=(*observers(seed), *place.observers),
            inspector=inspected,
            adapter=adapt,
            place=place,
            dog=dog,
            questions=questions,
        )
        return judged(record, settings, inspected, questions, asked, place)

    planned = settings.budget.max_steps or DEFAULT_STEPS
    return _over_seeds(seeds, in_its_place(run, place, settings, name, planned), settings.pass_at_least)


def overfit_config(
    config: OverfitConfig,
    model: Any,
    sample: Sample,
    *,
    loss: Loss | None = None,
    optimizer: Any = None,
    step: Callable[..., Any] | None = None,
    observers: Callable[[int], Sequence[Observer]] = lambda seed: (),
    rules: Any = (),
    place: Place = ALONE,
) -> OverfitResult:
    """Trains a model on one sample under a config, once per seed, and judges it by the config's criteria.

    Example:
        >>> config = load_config("quick.yaml")                                       # doctest: +SKIP
        >>> overfit_config(config, build_model(config), sample).passed               # doctest: +SKIP
        True

    Args:
        model: a module, or a factory that is called anew for every seed; None: the config's, built for every seed.
        loss, optimizer, step: in place of what the config names; see ``run_config``.
        rules: of the user's own, asked for causes beside ours.
    """
    criteria, asked = config.overfit.criteria, checked(rules)
    limits = criteria.limits()

    def accept(outcome: Outcome) -> bool:
        looked = _looked_at(outcome)
        return (criteria.train_val is None or judge_train_val(looked, criteria.train_val, limits).passed) and (
            criteria.prediction is None or judge_prediction(looked, criteria.prediction).passed
        )

    def run(seed: int, dog: Watchdog) -> OverfitResult:
        seeded = replace(config, seed=seed)
        told: list[str] = []
        with isolated(seed=seed):
            built = build_model(seeded, tell=told.append) if model is None else Subject(model, sample).build()
        questions = Questions()
        inspected = inspect(config.overfit, questions, place)
        record = run_config(
            seeded,
            Subject(built, replace(sample, notes=(*told, *sample.notes)), loss, optimizer, step),
            limits=limits,
            accept=accept,
            observers=(*observers(seed), *place.observers),
            inspector=inspected,
            place=place,
            dog=dog,
            questions=questions,
        )
        return judged(record, config.overfit, inspected, questions, asked, place)

    seeds = config.overfit.seeds or (config.seed,)
    placed = in_its_place(run, place, config.overfit, config.exp_name, config.planned_steps)
    return _over_seeds(seeds, placed, config.overfit.pass_at_least)


def in_its_place(
    run: Callable[[int, Watchdog], OverfitResult], place: Place, settings: OverfitSettings, name: str, planned: int
) -> Callable[[int], OverfitResult]:
    """The run of a seed in its place and within its limit: code that does not come back ends it with a verdict.

    All ranks begin and end it together, with the first rank's verdict on all; they look after each other.
    """
    ranks, limit = place.ranks, settings.budget.max_seconds

    def alone(seed: int) -> OverfitResult:
        dog = Watchdog(place.last)
        try:
            with place.taken(settings), dog.limited(limit if ranks is None else None, what=WARM_UP):
                return run(seed, dog)
        except Hung as hung:
            record = hung_record(hung.hang, hung.curves, name=name, seed=seed, planned_steps=planned)
            return judged(record, settings, None, Questions(), (), place)

    def shared(seed: int) -> OverfitResult:
        from pytest_overfit.report.record.codec import result_from_json, result_to_json

        assert ranks is not None
        with ranks.run(name, settings.distributed, seconds=limit):
            return ranks.share(alone(seed), result_to_json, result_from_json)

    return alone if ranks is None else shared


def inspect(settings: OverfitSettings, questions: Questions, place: Place = ALONE) -> Inspected | None:
    """Who looks into a run; None where the settings switch that off, and on all ranks but one that holds the model."""
    if not settings.diagnose:
        return None
    if not _is_inspected(settings, place):
        questions.leave_out("the diagnosis", SHARDED)
        return None

    def findings(record: RunRecord) -> tuple[Finding, ...]:
        return findings_of(record, settings)

    return Inspected(settings.criteria, findings, questions, seconds=settings.diagnose_seconds)


def findings_of(record: RunRecord, settings: OverfitSettings) -> tuple[Finding, ...]:
    """What the numbers of a record say; defects are judged by its causes."""
    return judge(record, replace(settings.criteria, defects=False), hold_steps=settings.budget.hold_steps)


def _is_inspected(settings: OverfitSettings, place: Place) -> bool:
    return place.ranks is None or (place.ranks.is_first and settings.distributed.strategy == "ddp")


def judged(
    record: RunRecord,
    settings: OverfitSettings,
    inspected: Inspected | None,
    questions: Questions,
    rules: Sequence[Rule],
    place: Place = ALONE,
) -> OverfitResult:
    """Findings and causes of one record."""
    criteria = settings.criteria
    evidence = None if inspected is None else inspected.evidence
    doubtful = any(each.ours for each in questions.not_asked)
    findings = findings_of(record, settings) if evidence is None else evidence.findings
    causes = (
        ()
        if evidence is None
        else find_causes(
            evidence,
            rules=(*rules, *checked(installed_rules())),
            allowed=criteria.allow,
            questions=questions,
        )
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
        if record.stop == "hung":
            found = unjudged("defects", *[finding.name for finding in findings if finding.missed][:1])
        findings = (*findings, found)
    return OverfitResult(record, findings, causes=causes, evidence=evidence, not_asked=questions.not_asked)


def _unlooked(record: RunRecord, inspected: Inspected | None, may_be: bool) -> str:
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
    if len(seeds) == 1:
        return results[0]
    if (last := results[-1]).record.stop == "hung":  # which no number of other seeds makes good
        red = [finding.name for finding in last.findings if finding.missed]
        return replace(last, findings=(*last.findings, unjudged("seeds", *red[:1])), runs=tuple(results))
    findings = combine([(r.record.seed, r.findings) for r in results], needed=needed or len(seeds))
    worst = min(results, key=lambda result: (result.passed, *_last_margin(result)))
    not_asked = tuple(dict.fromkeys(each for result in results for each in result.not_asked))
    return OverfitResult(worst.record, findings, tuple(results), worst.causes, worst.evidence, not_asked)


def _last_margin(result: OverfitResult) -> Iterator[float]:
    yield float("inf") if result.margin is None else result.margin


def _is_instance(optimizer: Any) -> bool:
    return optimizer is not None and not callable(optimizer)


def _looked_at(outcome: Outcome) -> RunRecord:
    """A record that holds nothing but an outcome: enough to judge agreement in the middle of a run."""
    blank: dict[str, Any] = {"name": "", "seed": 0, "device": "", "planned_steps": 0, "steps": 0, "seconds": 0.0}
    curves: Mapping[str, tuple[float, ...]] = {}
    return RunRecord(
        **blank,
        stop="passed",
        curves=curves,
        evaluation=outcome.evaluation,
        predictions=outcome.frames,
        prediction_keys=outcome.keys,
    )
