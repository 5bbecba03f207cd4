"""The experiment record of a run in Markdown: what was trained, what was seen, why, and what comes next."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.report.markdown.escape import block, code, line, prose, table, text
from pytest_overfit.report.markdown.setup import setup_rows
from pytest_overfit.report.markdown.tables import (
    change_text,
    comparison_table,
    differences_line,
    final_table,
    loss_table,
    pair_table,
    seeds_table,
    steps_per_epoch,
    steps_text,
)
from pytest_overfit.report.record.document import Document
from pytest_overfit.run.record import RunRecord
from pytest_overfit.text.cause_titles import meaning, title
from pytest_overfit.text.failure import error_line
from pytest_overfit.text.translations import Words, translated, words

THIN = 0.05  # of the steps of a budget: less of them left is within what another seed or machine changes


def experiment_record(document: Document, lang: str = "en") -> str:
    """The record of a run as one keeps it in a notebook: settings, losses, observations, causes, conclusion.

    Example:
        >>> print(experiment_record(document, lang="zh").splitlines()[0])                  # doctest: +SKIP
        # 实验记录：configs/quick.yaml

    Args:
        lang: ``en`` or ``zh``. Names, numbers, and what is to be pasted are the same in both.

    Raises:
        OverfitError: there are no texts in that language.
    """
    said = words(lang)
    sections = [_head(document, said, lang)]
    if document.pair is not None:
        sections.append(_pair(document, said))
    sections.append(_section(said["settings"], table([said["item"], said["value"]], setup_rows(document, said, lang))))
    if document.result is not None:
        sections.append(_losses(document, document.result.record, said))
    sections.append(_observations(document, said, lang))
    if document.result is not None and (document.result.causes or document.verdict == "failed"):
        sections.append(_causes(document, said, lang))
    if document.result is not None and document.result.answers:
        heads = [said["question"], said["measured"], said["answer"]]
        rows = [
            [each.question, *(text(translated(told, lang)) for told in (each.measured, each.answer))]
            for each in document.result.answers
        ]
        sections.append(_section(said["asked"], table(heads, rows)))
    if document.result is not None and document.result.record.twins:
        heads = [said["twin"], said["outcome"], said["exchanged"], said["measured"]]
        told = document.result.record.twins
        rows = [
            [t.name, t.outcome, text(t.exchanged), text("; ".join(filter(None, (t.observed, t.where))))] for t in told
        ]
        sections.append(_section(said["twins"], table(heads, rows)))
    if document.comparison is not None:
        sections.append(_comparison(document, said))
    sections.append(_conclusion(document, said, lang))
    if document.command:
        sections.append(_section(said["again"], block(document.command, "bash")))
    return "\n\n".join(sections) + "\n"


def _section(title: str, *parts: str, level: int = 2) -> str:
    return "\n\n".join([f"{'#' * level} {title}", *parts])


def _head(document: Document, said: Words, lang: str) -> str:
    title = text(document.title)
    rows = [
        [said["date"], text(document.started.replace("T", " ", 1))],
        [said["test"], said["call"].format(title=title, call=document.call) if document.call > 1 else title],
        [said["verdict"], f"**{said[document.verdict]}**"],
    ]
    if document.result is not None:
        record = document.result.record
        seconds = said["seconds"].format(seconds=record.seconds, step_ms=record.step_ms)
        rows += [[said["steps"], steps_text(record, said)], [said["duration"], seconds]]
    missed = any(finding.missed for finding in document.findings)
    told = [f"**{text(translated(document.first_line, lang))}**"] if missed else []
    if document.error:
        rows.append([said["error"], text(translated(error_line(document.error), lang))])
    if document.error and len(document.error.splitlines()) > 1:
        told.append(block(translated(document.error, lang)))
    return _section(said["title"].format(title=title), table([said["item"], said["value"]], rows), *told, level=1)


def _pair(document: Document, said: Words) -> str:
    assert document.pair is not None
    name = said["sequence"].format(name=text(document.pair.seq_name))
    views = [pair_table(document.pair, said)] if document.pair.views else []
    return _section(said["pair"], name, *views)


def _losses(document: Document, record: RunRecord, said: Words) -> str:
    if not record.steps:
        return _section(said["loss"], said["no_steps"])
    parts = [said["worst_seed"].format(seed=record.seed)] if len(document.records) > 1 else []
    parts.append(loss_table(document, record, said))
    if per := steps_per_epoch(document):
        parts.append(said["epoch_caption"].format(per=per, steps=record.steps))
    return _section(said["loss"], *parts)


def _observations(document: Document, said: Words, lang: str) -> str:
    result, parts = document.result, ["\n".join(f"- {fact}" for fact in _facts(document, said))]
    if result is not None:
        finals = final_table(document, result, said)
        parts += [finals] if finals else []
        parts += [seeds_table(result, said)] if result.runs else []
    problems = [f"- {_problem(finding, said, lang)}" for finding in document.findings if not finding.passed]
    if problems:
        parts.append(_section(said["problems"], "\n".join(problems), level=3))
    elif document.findings:
        parts.append(_section(said["problems"], said["no_problems"], level=3))
    if result is not None and result.notes:
        notes = "\n".join(f"- {line(translated(note, lang))}" for note in result.notes)
        parts.append(_section(said["notes"], notes, level=3))
    return _section(said["observations"], *parts)


def _facts(document: Document, said: Words) -> Iterator[str]:
    record = document.result.record if document.result else None
    curve = record.curves.get("objective", ()) if record else ()
    finite = [value for value in curve if math.isfinite(value)]
    if finite:
        best = min(finite)
        yield said["fell" if curve[-1] < curve[0] else "not_fell"].format(
            first=number(curve[0]),
            last=number(curve[-1]),
            steps=len(curve),
            best=number(best),
            at=curve.index(best) + 1,
        )
    missed = [finding for finding in document.findings if finding.missed]
    held = [finding.steps_to_pass for finding in document.findings if finding.steps_to_pass is not None]
    if document.verdict == "passed":
        yield said["overfit_since"].format(step=max(held)) if held else said["overfit_yes"]
    elif missed:
        yield said["overfit_no"].format(missed=len(missed), count=len(document.findings))
    else:
        yield said["overfit_unknown"]
    if document.verdict == "passed" and curve and curve[-1] < 0:
        yield said["confidence"]
    if record is not None and record.non_finite is not None:
        found = said["non_finite"].format(what=text(record.non_finite.what), step=record.non_finite.step)
        module = record.non_finite.module
        yield said["in_module"].format(text=found, module=code(module)) if module else found


def _problem(finding: Finding, said: Words, lang: str) -> str:
    name, seen = f"**{text(finding.name)}**", text(translated(finding.observed, lang))
    if not finding.judged:
        return f"{name} ({said['not_judged']}): {seen}"
    told = [said["problem"].format(name=name, observed=seen, allowed=text(translated(finding.allowed, lang)))]
    told += [said["where"].format(where=text(translated(finding.where, lang)))] if finding.where else []
    told += [said["next"].format(hint=prose(translated(finding.hint, lang)))] if finding.hint else []
    return "\n  - ".join(told)


def _causes(document: Document, said: Words, lang: str) -> str:
    assert document.result is not None
    causes = document.result.causes
    if not causes:
        return _section(said["causes"], said["not_named" if document.result.evidence else "not_diagnosed"])
    told = []
    for place, cause in enumerate(causes, 1):
        strength = said["observed_strength" if cause.strength == "observed" else cause.strength]
        indent = "\n" + " " * len(f"{place}. ") + "- "
        seen = prose(translated(cause.observed, lang))
        lines = [
            f"{place}. " + said["cause"].format(id=text(title(cause.id, lang)), strength=strength, observed=seen),
            *filter(None, [meaning(cause.id, lang)]),
            said["cause_where"].format(where=text(translated(cause.where, lang))),
            said["change"].format(advice=change_text(translated(cause.advice, lang), cause.advice)),
        ]
        told.append(indent.join(lines))
    return _section(said["causes"], "\n".join(told))


def _comparison(document: Document, said: Words) -> str:
    compared = document.comparison
    assert compared is not None
    parts = [said["saved"].format(saved=text(compared.saved))] if compared.saved else []
    parts += list(filter(None, [differences_line(compared, said)]))
    parts += [comparison_table(compared, said)] if compared.changes else []
    parts += [line(compared.note)] if compared.note else []
    return _section(said["comparison"].format(name=text(compared.name)), *parts)


def _conclusion(document: Document, said: Words, lang: str) -> str:
    steps = document.result.record.steps if document.result else 0
    if document.state != "finished":
        unfinished = said[f"state_{document.state}"].format(steps=steps)
        return _section(said["conclusion"], unfinished, said["next_step"].format(advice=_advice(document, said, lang)))
    told = [said[f"concluded_{document.verdict}"]]
    if document.verdict == "passed" and document.records:
        last = max(document.records, key=lambda record: record.steps / max(1, record.planned_steps))
        told.append(said["reserve"].format(steps=last.steps, planned=last.planned_steps))
        told += [said["thin"]] if last.steps > (1 - THIN) * last.planned_steps else []
    advice = said["next_step"].format(advice=_advice(document, said, lang))
    return _section(said["conclusion"], said["joint"].join(told), advice)


def _advice(document: Document, said: Words, lang: str) -> str:
    """What to do next: what the strongest cause says, else what the first missed criterion says."""
    causes = document.result.causes if document.result else ()
    if document.verdict == "passed":
        return said["next_passed"]
    if causes:
        advice = change_text(translated(causes[0].advice, lang), causes[0].advice)
        return said["next_cause"].format(advice=advice, id=text(causes[0].id))
    hints = [finding.hint for finding in document.findings if finding.missed and finding.hint]
    if hints:
        return prose(translated(hints[0], lang))
    return said["next_look" if any(finding.missed for finding in document.findings) else "next_rerun"]
