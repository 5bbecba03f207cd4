"""The tables that several pages share: criteria, losses over the run, final values, the pair."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_overfit.judge.finding import Finding, is_line, judged_value, number
from pytest_overfit.report.markdown.escape import code, prose, table, text
from pytest_overfit.report.record.document import Comparison, Document, Pair
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.text.table import margin_text
from pytest_overfit.text.translations import Words, translated

NOTHING = "–"
STEPS_PER_EPOCH = "overfit.steps_per_epoch"
SHOWN = (1, 10, 50, 100)  # epochs or steps


@dataclass(frozen=True)
class LossRow:
    """One row of the table of losses: an epoch or a step, and the step (from 1) that its values are of."""

    number: int
    step: int
    last: bool


def criteria_table(findings: Sequence[Finding], words: Words, lang: str = "en") -> str:
    """One row per criterion; those that were missed are marked.

    Example:
        >>> from pytest_overfit.text.translations import words
        >>> print(criteria_table([Finding("camera", True, "loss_camera 0.0005", "< 0.001", margin=2.0)], words("en")))
        | Verdict | Criterion | Observed | Allowed | Margin | Since step |
        | --- | --- | --- | --- | ---: | ---: |
        | passed | camera | loss_camera 0.0005 | < 0.001 | 2x |  |
    """
    header = [words[key] for key in ("verdict", "criterion", "observed", "allowed", "margin", "since")]
    rows = [
        [
            _verdict(finding, words),
            text(finding.name),
            text(translated(finding.observed, lang)),
            text(translated(finding.allowed, lang)),
            margin_text(finding.margin, words),
            "" if finding.steps_to_pass is None else str(finding.steps_to_pass),
        ]
        for finding in findings
    ]
    return table(header, rows, right=[4, 5])


def _verdict(finding: Finding, words: Words) -> str:
    if not finding.judged:
        return words["not_judged"]
    return words["passed"] if finding.passed else f"**{words['failed']}**"


def change_text(told: str, advice: str) -> str:
    """What to change: a line that can be pasted is code, which copies as it stands; so is what a sentence has of it.

    Args:
        told: the advice as it is told, in the language of the report.
    """
    if is_line(advice) and told.endswith(advice):
        return f"{text(told.removesuffix(advice))} {code(advice)}".lstrip()
    return prose(told)


def pair_table(pair: Pair, words: Words) -> str:
    """Scene, image and valid share of every view."""
    header = [words[key] for key in ("frame", "scene", "image", "valid_pixels", "valid_ratio")]
    rows = []
    for place, view in enumerate(pair.views):
        counted = view.valid is not None and view.total
        pixels = words["share"].format(part=view.valid, total=view.total) if counted else NOTHING
        ratio = f"{100 * (view.valid or 0) / (view.total or 1):.1f} %" if counted else NOTHING
        rows.append([str(place), text(view.scene), text(view.image), pixels, ratio])
    return table(header, rows, right=[3, 4])


def steps_per_epoch(document: Document) -> int | None:
    """Steps of one epoch, where a config says so."""
    value = document.setting_values.get(STEPS_PER_EPOCH, "")
    return int(value) if value.isdecimal() and int(value) > 0 else None


def loss_rows(steps: int, per: int | None) -> Iterator[LossRow]:
    """The rows that exist: those of ``SHOWN`` that the run came to, and the last.

    Example:
        >>> [(row.number, row.step) for row in loss_rows(175, per=4)]
        [(1, 4), (10, 40), (44, 175)]
    """
    size = per or 1
    last = math.ceil(steps / size)
    for place in (*(place for place in SHOWN if place < last), *([last] if last else [])):
        yield LossRow(place, min(place * size, steps), place == last)


def loss_table(document: Document, record: RunRecord, words: Words) -> str:
    """Training, validation, camera and depth loss over the run, and every other term that has a limit."""
    curves, per = record.curves, steps_per_epoch(document)
    camera, depth = record.terms.get("camera"), record.terms.get("depth")
    others = [name for name in document.limits if name in curves and name not in ("objective", camera, depth)]
    columns = [
        *([(words["camera_loss"], camera)] if camera else []),
        *([(words["depth_loss"], depth)] if depth else []),
        *((text(name), name) for name in others),
    ]
    validated = bool(record.val_steps or record.evaluation)
    header = [words["epoch" if per else "step"], words["train_loss"], *([words["val_loss"]] if validated else [])]
    header += [name for name, _ in columns]
    rows, before = [], 0
    for row in loss_rows(record.steps, per):
        shown = words["last"].format(number=row.number) if row.last else str(row.number)
        train, *rest = (_at(curves.get(name, ()), row.step) for name in ("objective", *(term for _, term in columns)))
        rows.append([shown, train, *([_validation(record, before, row, words)] if validated else []), *rest])
        before = row.step
    return table(header, rows, right=range(len(header)))


def final_table(document: Document, result: OverfitResult, words: Words) -> str | None:
    """What was judged of every term with a limit, against it; one row per seed. None where nothing has a limit."""
    runs = result.runs or (result,)
    keys = ("term", "final", "limit", "margin", "since", "verdict")
    header = [*([words["seed"]] if len(runs) > 1 else []), *(words[key] for key in keys)]
    rows = []
    for term, limit in document.limits.items():
        for run in runs:
            seed = [str(run.record.seed)] if len(runs) > 1 else []
            rows += [[*seed, *_final(term, limit, run, words)]] if run.record.curves.get(term) else []
    return table(header, rows, right=range(len(header) - 5, len(header) - 1)) if rows else None


def seeds_table(result: OverfitResult, words: Words) -> str:
    """One row per seed: verdict, steps, why it stopped, and the objective that was judged."""
    header = [words[key] for key in ("seed", "verdict", "steps", "final")]
    rows = [
        [
            str(run.record.seed),
            words["passed"] if run.passed else f"**{words['failed']}**",
            steps_text(run.record, words),
            judged_value(run.findings, "objective", run.record.curves.get("objective", ()) or (math.nan,)),
        ]
        for run in result.runs
    ]
    return table(header, rows, right=[0, 3])


def differences_line(compared: Comparison, words: Words) -> str:
    """The settings and the versions that are not those of the saved run, in one line; empty where all are."""
    pairs = [
        f"{code(n)} {text(old or NOTHING)} → {text(new or NOTHING)}" for n, (old, new) in compared.differences.items()
    ]
    return words["changed_since"].format(changes=", ".join(pairs)) if pairs else ""


def comparison_table(compared: Comparison, words: Words) -> str:
    """Every number of a run against the same number of a saved one."""
    header = [words[key] for key in ("quantity", "then", "now", "ratio", "range", "seeds", "verdict")]
    rows = []
    for change in compared.changes:
        low, high = change.spread
        verdict = words["moved" if change.moved else "not_moved"]
        if change.broken:
            verdict = f"**{words['broken'].format(allowed=f'{change.allowed:g}x')}**"
        spread = f"{low:.3g}x {NOTHING} {high:.3g}x" if change.seeds else NOTHING
        values = [
            number(change.then),
            number(change.now),
            f"{change.ratio:.3g}{'x' * (change.step is None)}",
            spread,
            str(change.seeds),
        ]
        rows.append([text(change.quantity), *values, verdict])
    return table(header, rows, right=[1, 2, 3, 4, 5])


def steps_text(record: RunRecord, words: Words) -> str:
    """How far a run went, and why no farther."""
    stop = words[f"stop_{record.stop}"]
    return words["steps_of"].format(steps=record.steps, planned=record.planned_steps, stop=stop)


def _final(term: str, limit: Limit, run: OverfitResult, words: Words) -> list[str]:
    found = next((f for f in run.findings if run.record.terms.get(f.name) == term), None)
    verdict = NOTHING if found is None else _verdict(found, words)
    margin = margin_text(found.margin, words) if found else ""
    since = str(found.steps_to_pass) if found and found.steps_to_pass is not None else ""
    value = judged_value(run.findings, found.name if found else "", run.record.curves[term])
    return [text(term), value, text(limit.text()), margin, since, verdict]


def _at(curve: Sequence[float], step: int) -> str:
    return number(curve[step - 1]) if 0 < step <= len(curve) else NOTHING


def _validation(record: RunRecord, before: int, row: LossRow, words: Words) -> str:
    """That of the final parameters in the last row; else the latest since the row before, with its step."""
    if row.last and record.evaluation and "objective" in record.evaluation.val:
        return number(record.evaluation.val["objective"])
    curve = record.val_curves.get("objective", ())
    within = [item for item in zip(record.val_steps, curve, strict=False) if before < item[0] <= row.step]
    if not within:
        return NOTHING
    step, value = within[-1]
    return number(value) if step == row.step else words["at_step"].format(value=number(value), step=step)
