"""What to change as a line that can be pasted where the user is: theirs, a keyword of a call, or an override."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pytest_overfit.diagnose.call_site import Asked, OfConfig
from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.class_lines import classified
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.exchanged_lines import output_first, output_first_at
from pytest_overfit.diagnose.gradients_off import GRADIENTS_ON
from pytest_overfit.diagnose.operation import Broadcast, ClassColumns, with_fact
from pytest_overfit.diagnose.order_lines import order_undone
from pytest_overfit.diagnose.source_lines import (
    axes_exchanged,
    extended,
    followed,
    in_module_list,
    inactive,
    keyword,
    line_to_change,
    preceded,
    renamed,
    squeezed,
    swapped,
    trainable,
    undropped,
    while_training,
    without,
)
from pytest_overfit.diagnose.uncut_lines import cut_free, leaves_torch, made_again, made_of

Rule = Callable[[Cause, Evidence, Asked], str]
CRITERIA = {"mse_loss": "MSELoss", "l1_loss": "L1Loss", "smooth_l1_loss": "SmoothL1Loss", "huber_loss": "HuberLoss"}
OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam")
RUNS = ("overfit", "run_overfit")
RESERVED = 0.8  # of a budget: a proof that took more of it is as good as its last digit
SET = re.compile(r"--overfit-set '?([\w.]+)=")
NOWHERE = ("the train step", "the optimizer")  # what a line of a config says better
PLACE = re.compile(r"[^\s:,]+\.py:\d+")


def with_lines(causes: Sequence[Cause], evidence: Evidence, asked: Asked) -> tuple[Cause, ...]:
    """The causes, each with a line to paste for its advice where one is known to be it."""
    changed = (
        replace(cause, advice=line)
        if (rule := RULES.get(cause.id)) is not None and (line := rule(cause, evidence, asked))
        else cause
        for cause in causes
    )
    return tuple(changed if asked.config is None else (_in_config(cause, asked.config) for cause in changed))


def _in_config(cause: Cause, config: OfConfig) -> Cause:
    """The same, with the lines of the config that its advice changes; what is meant is declared by a key."""
    advice = cause.advice.replace("declare frozen=", "set overfit.criteria.frozen=")
    places = [place for key in SET.findall(advice) if (place := config.place(key))]
    first, found = places[:1], f" and {len(places) - 1} more" if len(places) > 1 else ""
    where = f"{first[0]}{found}" if first else cause.where
    beside = first and cause.where and cause.where not in NOWHERE
    observed = cause.observed
    if first and RULES.get(cause.id) is _rate:  # the first line says what is really read
        spot, _, key = first[0].rpartition(" ")
        told = rf"with lr \1, not \2 ({spot} {key.rpartition('.')[2]})"
        observed = re.sub(r"with a learning rate of (\S+) instead of ([^\s;]+)", told, observed)
    return replace(cause, observed=observed, advice=advice, where=f"{where}: {cause.where}" if beside else where)


def _rate(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    was = cause.evidence["lr"]
    works = cause.evidence.get("works", was / 100 if cause.id == "lr-high" else 0.0)
    if not works:
        return ""
    now = f"{works:.3g}"
    if asked.config is not None:
        line, planned = asked.config.rate(was, works), evidence.record.planned_steps
        tight = cause.evidence.get("steps", 0.0) > RESERVED * planned
        return f"{line} --overfit-max-steps {2 * planned}" if line and tight else line
    if line := line_to_change(asked.sources, keyword("lr", was, now, calls=OPTIMIZERS)):
        return line
    kinds = {group.kind for group in evidence.groups}
    if asked.default and not evidence.own_step:
        return line_to_change(asked.sources, extended(RUNS, "lr", now)) or f"lr={now}"
    kind = next(iter(kinds), "")
    known = len(kinds) == 1 and kind in OPTIMIZERS
    return f"optimizer=lambda p: torch.optim.{kind}(p, lr={now})" if known and not evidence.own_step else ""


def _schedule(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    return asked.config.lasting() if asked.config is not None and "gone" in cause.evidence else ""


def _decay(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    was = cause.evidence.get("weight_decay")
    if not was:
        return ""
    if asked.config is not None:
        return asked.config.no_decay()
    return line_to_change(asked.sources, keyword("weight_decay", was, "0.0"))


def _steps(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    wanted = f"{cause.evidence['steps']:.0f}"
    if asked.config is not None:
        return f"--overfit-max-steps {wanted}"
    said = keyword("max_steps", None, wanted), extended(RUNS, "max_steps", wanted)
    lines = (line_to_change(asked.sources, edit) for edit in said)
    return next(filter(None, lines), f"max_steps={wanted}")


def _group(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    if "group" not in cause.evidence:
        return ""
    others = [max(group.rates) for group in evidence.groups if group.rates and group.index != cause.evidence["group"]]
    others = [rate for rate in others if rate > 0]
    proven = evidence.proof("one rate")
    now = (proven.trial.value if proven else None) or min(others, default=0.0)
    return line_to_change(asked.sources, keyword("lr", cause.evidence["lr"], f"{now:.3g}")) if now else ""


def _hyperparameter(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    changes = re.findall(r"set (\w+)=(\S+?)(?:,|$)", cause.advice)
    if len(changes) != 1 or asked.config is not None:
        return ""
    (name, usual), (was,) = changes[0], cause.evidence.values()
    return line_to_change(asked.sources, keyword(name, was, usual))


def _frozen(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    if evidence.record.freeze_matches:
        if asked.config is not None:
            return asked.config.thawed()
        return line_to_change(asked.sources, keyword("freeze", None, "[]"))
    return line_to_change(asked.sources, trainable)


def _activation(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    said = f"{cause.where} {cause.advice}".lower()
    names = list(dict.fromkeys(re.findall(r"log_?softmax|softmax|log_?sigmoid|sigmoid|tanh|relu|\bexp\b", said)))
    return line_to_change(asked.sources, inactive(names[0])) if len(names) == 1 else ""


def _broadcast(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    place = PLACE.search(cause.where)
    if "columns" in cause.evidence:
        return _classified(place[0] if place else "", evidence, asked)
    op = next((op for op in evidence.noted if op.where == cause.where and len(op.shapes) > 1), None)
    if op is None or place is None:
        return ""
    first, second = (tuple(shape) for shape in op.shapes[:2])
    by = op.name if not isinstance(op.fact, Broadcast) else op.fact.by
    longer = int(len(second) > len(first))  # the operand that has an axis of one too many
    more, less = ((first, second), (second, first))[longer]
    extra = [axis for axis in range(len(more)) if more[axis] == 1 and more[:axis] + more[axis + 1 :] == less]
    if len(extra) != 1:
        return ""
    axis = -1 if extra[0] == len(more) - 1 else extra[0]
    return line_to_change(asked.sources, squeezed(by, longer, axis), at=place[0])


def _classified(place: str, evidence: Evidence, asked: Asked) -> str:
    op = next(op for op, _ in with_fact(evidence.probed.ops, ClassColumns))
    output, _, ids = op.shapes
    edit = classified(op.name, CRITERIA.get(op.name, ""), last=len(output) > 2, ids_last=len(ids) == len(output))
    return line_to_change(asked.sources, edit, at=place) if place else ""


def _accumulation(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    stale = cause.advice.startswith("call optimizer.zero_grad()")
    return line_to_change(asked.sources, preceded("backward", "{}.zero_grad()")) if stale else ""


def _removed(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    """Without the call that the advice names, at the place that it or the cause names."""
    place, named = PLACE.search(f"{cause.advice} {cause.where}"), re.search(r"\.?(\w+)\(\)", cause.advice)
    if place is None or (named is None and cause.id != "loss-clamped"):
        return ""
    edit = without(named[1]) if named is not None else without("clamp", "clip")
    return line_to_change(asked.sources, edit, at=place[0])


def _dropout(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    place = PLACE.search(cause.where)
    kept = evidence.learned and "self.training" in cause.advice  # else it is a floor in training too
    for edit in (while_training, without("dropout"))[not kept :]:
        if place is not None and (line := line_to_change(asked.sources, edit, at=place[0])):
            return line
    return line_to_change(asked.sources, undropped) if "without dropout" in cause.advice else ""


def _said(name: str, now: str) -> Rule:
    """One keyword of the user's that the advice names, whatever it is now."""

    def rule(cause: Cause, evidence: Evidence, asked: Asked) -> str:
        named = name in cause.advice.replace(" ", "_")
        said = re.search(rf'{name}=("\w+")', cause.advice)
        return line_to_change(asked.sources, keyword(name, None, said[1] if said else now)) if named else ""

    return rule


def _sign(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    named = "log_softmax before nll_loss" in cause.advice
    return line_to_change(asked.sources, renamed("nll_loss", "cross_entropy") if named else output_first)


def _exchanged(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    place = PLACE.search(cause.where)
    if cause.advice.startswith("exchange axes in place") and place:
        return line_to_change(asked.sources, axes_exchanged(cause.advice.partition("logits.")[2]), at=place[0])
    if not cause.advice.startswith("exchange its arguments"):
        return ""
    if third := re.search(r"\(predicted, target, (?!.*,)", cause.advice):
        name = cause.advice[: third.start()].rpartition(" ")[2]
        return line_to_change(asked.sources, swapped(name, 1), at=place[0] if place else "")
    return (line_to_change(asked.sources, output_first_at(place[0])) if place else "") or line_to_change(
        asked.sources, output_first
    )


def _ignored(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    return line_to_change(asked.sources, made_again)


def _no_gradient(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    if cause.advice.startswith("call loss.backward()"):
        return line_to_change(asked.sources, preceded("step", "{}.backward()"))
    place, by = PLACE.search(cause.where), re.match(r"leave \.(item|tolist)\(\) out in ", cause.advice)
    if place is not None and by is not None:  # what makes a tensor of the numbers again goes with it
        return line_to_change(asked.sources, cut_free(by[1]), at=place[0])
    return _removed(cause, evidence, asked) or _gradients_on(cause, asked)


def _gradients_on(cause: Cause, asked: Asked) -> str:
    """The line that switches gradients off, switching them on."""
    place = PLACE.search(f"{cause.observed} {cause.where}")
    named = place is not None and "torch.no_grad" in f"{cause.observed} {cause.advice}"
    return line_to_change(asked.sources, GRADIENTS_ON, at=place[0]) if named and place else ""


def _no_step(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    return (
        line_to_change(asked.sources, followed("backward", "{}.step()"))
        if cause.advice.startswith("call optimizer.step()")
        else ""
    )


def _detached(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    place, by = PLACE.search(cause.where), re.search(r"without (\S+)$", cause.advice)
    if place is None or by is None or line_to_change(asked.sources, leaves_torch(place[0])):
        return ""
    remade = line_to_change(asked.sources, made_of(place[0]))
    said = remade or line_to_change(asked.sources, cut_free(by[1]), at=place[0])
    return said or _gradients_on(cause, asked)


def _clip(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    now = re.search(r"clip at (\S+),", cause.advice)
    if now is None:
        return ""
    if asked.config is not None:
        return asked.config.clip(cause.evidence["norm"], now[1])
    was = cause.evidence["most"]
    return line_to_change(asked.sources, keyword("max_norm", was, now[1], calls=("clip_grad_norm_",)))


def _weight(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    nothing = asked.config is not None and cause.evidence.get("weight") == 0
    return asked.config.weight(cause.where.removeprefix("term ")) if asked.config is not None and nothing else ""


def _reordered(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    place = PLACE.fullmatch(cause.where)
    return line_to_change(asked.sources, order_undone(place[0])) if place else ""


def _unregistered(cause: Cause, evidence: Evidence, asked: Asked) -> str:
    return line_to_change(asked.sources, in_module_list)


RULES: Mapping[str, Rule] = {
    "lr-low": _rate,
    "lr-high": _rate,
    "lr-group": _group,
    "lr-schedule": _schedule,
    "few-steps": _steps,
    "weight-decay": _decay,
    "optimizer-hyperparameter": _hyperparameter,
    "frozen": _frozen,
    "double-activation": _activation,
    "output-range": _activation,
    "broadcast": _broadcast,
    "grad-accumulation": _accumulation,
    "no-gradient": _no_gradient,
    "no-step": _no_step,
    "loss-detached": _detached,
    "grad-clip": _clip,
    "term-weight": _weight,
    "batch-mixing": _reordered,
    "unregistered": _unregistered,
    "zero-gradient": _removed,
    "loss-clamped": _removed,
    "loss-scale": _said("reduction", '"mean"'),
    "loss-floor": _said("label_smoothing", "0.0"),
    "leak": _said("is_causal", "True"),
    "loss-sign": _sign,
    "target-mismatch": _exchanged,
    "loss-ignores-output": _ignored,
    "stochastic": _dropout,
}
