"""What a run was made of, as rows of a table: optimizer, learning rate, frozen modules, device and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_overfit.judge.finding import number
from pytest_overfit.report.markdown.escape import code, text
from pytest_overfit.report.markdown.tables import steps_per_epoch
from pytest_overfit.report.record.document import Document
from pytest_overfit.run.record import RunRecord
from pytest_overfit.text.translations import Words, translated

# Of a config; a run without one has no names for these.
_NAMED = (("model", "model._target_"), ("loss_function", "loss._target_"), ("optimizer", "optim.optimizer._target_"))


def setup_rows(document: Document, words: Words, lang: str = "en") -> list[list[str]]:
    """Item and value of everything that is known of how the run was set up.

    Example:
        >>> setup_rows(document, words("en"))[3:5]                  # doctest: +SKIP
        [['Learning rate', '6e-05 at first, 0.002 at most, 0.0009133 at the end'], ['Weight decay', '0']]
    """
    record = document.result.record if document.result else None
    return [[words[key], value] for key, value in _rows(document, record, words, lang)]


def _rows(document: Document, record: RunRecord | None, words: Words, lang: str) -> Iterator[tuple[str, str]]:
    given = document.setting_values
    yield from ((key, code(given[name])) for key, name in _NAMED if name in given)
    for key, name, curve in (
        ("learning_rate", "optim.optimizer.lr", record.learning_rate if record else ()),
        ("weight_decay", "optim.optimizer.weight_decay", record.weight_decay if record else ()),
    ):
        if curve or name in given:
            yield key, _rate(curve, words) if curve else text(given[name])
    per, planned = steps_per_epoch(document), record.planned_steps if record else None
    if planned is not None and per:
        yield "epochs", words["epochs_of"].format(epochs=-(-planned // per), per=per, planned=planned)
    elif planned is not None:
        yield "budget", str(planned)
    elif "max_epochs" in given:
        yield "epochs", text(given["max_epochs"])
    yield "batch_size", words["one_pair" if document.pair else "one_batch"]
    if "img_size" in given:
        yield "image_size", f"{text(given['img_size'])} px"
    yield "frozen", _frozen(document, record, words)
    if record is not None:
        yield from _of_record(document, record, words)
    elif "seed_value" in given:
        yield "seed", text(given["seed_value"])
    environment = {**document.environment, **(record.environment if record else {})}
    shown = {name: value for name, value in environment.items() if name not in ("threads", "precision")}
    if shown:
        yield "environment", text(", ".join(translated(f"{name} {value}", lang) for name, value in shown.items()))


def _of_record(document: Document, record: RunRecord, words: Words) -> Iterator[tuple[str, str]]:
    if record.parameters:
        total = sum(parameter.numel for parameter in record.parameters)
        part = sum(parameter.numel for parameter in record.parameters if parameter.trainable)
        yield "parameters", words["share"].format(part=f"{part:,}", total=f"{total:,}")
    if "precision" in record.environment:
        yield "precision", text(record.environment["precision"])
    seeds = [run.seed for run in document.records]
    yield "seed" if len(seeds) == 1 else "seeds", ", ".join(map(str, seeds))
    threads = record.environment.get("threads") if record.device == "cpu" else None
    device = text(record.device)
    yield "device", words["threads"].format(device=device, threads=text(threads)) if threads else device
    if record.peak_mib is not None:
        yield "memory", f"{record.peak_mib:.0f} MiB"


def _rate(curve: Sequence[float], words: Words) -> str:
    if len(set(curve)) == 1:
        return number(curve[0])
    return words["rates"].format(first=number(curve[0]), most=number(max(curve)), last=number(curve[-1]))


def _frozen(document: Document, record: RunRecord | None, words: Words) -> str:
    if record is None:
        given = document.setting_values.get("optim.frozen_module_names", "none")
        return words["none"] if given == "none" else code(given)
    matches = [
        words["frozen_match"].format(pattern=code(match.pattern), tensors=match.tensors, numel=f"{match.numel:,}")
        for match in record.freeze_matches
    ]
    return ", ".join(matches) or words["none"]
