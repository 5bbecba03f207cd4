"""What outputs depend on: inputs, other samples, chance, the mode, the answer itself."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import LOSS, Evidence
from pytest_overfit.diagnose.rules.seen import noted, proof, rebuilt
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number


def ignored(evidence: Evidence) -> Iterator[Cause]:
    """An argument of the model that changes nothing."""
    gone = (*evidence.probed.ignored, *evidence.probed.ignored_slices)
    zeroed = next(
        (
            op
            for op in noted(evidence)
            if op.name == "fresh" and op.notes.get("by", "").endswith("_like") and op.region != LOSS
        ),
        None,
    )
    if not gone or evidence.record.stop in ("detached", "non_finite"):
        return
    made = f"; {zeroed.notes['by']}({zeroed.notes['key']}) is used in its place in {zeroed.where}" if zeroed else ""
    yield Cause(
        "input-ignored",
        ", ".join(gone),
        f"{', '.join(gone)} can be changed at will, and no output of the model changes{made}",
        "use it in forward; if that is meant, leave it out of the call",
        "shown",
        {"inputs": len(gone)},
        certain=evidence.learned,
        weight=0.9 if evidence.learned or zeroed else 0.75,
    )


def padding_alone(evidence: Evidence) -> Iterator[Cause]:
    """An attention reads the padding and none of the content."""
    op = next((op for op in noted(evidence) if op.numbers.get("padding_alone")), None)
    if op is not None:
        yield Cause(
            "input-ignored",
            op.where,
            "attention reads the padded places and none of the others: its mask is inverted",
            "invert the mask: a key_padding_mask is True where a key is left out, an attn_mask of booleans where it "
            "takes part",
            "shown",
            {},
            certain=True,
            weight=0.95,
        )


def mixed(evidence: Evidence) -> Iterator[Cause]:
    """The output of one sample depends on another."""
    over = next(
        (
            op
            for op in noted(evidence)
            if op.name in ("softmax", "log_softmax")
            and op.region == LOSS
            and op.numbers.get("over_samples")
            and op.numbers.get("ranks") == 2
        ),
        None,
    )
    if over is not None and not evidence.passed:
        yield Cause(
            "batch-mixing",
            over.where,
            f"{over.name} runs over axis 0, the {over.shapes[-1][0]} samples, and not over the classes",
            "pass dim=-1",
            "shown",
            {"samples": over.shapes[-1][0]},
            weight=0.95,
        )
    moved = evidence.probed.mixed
    if moved is None or moved < 1e-4 or not evidence.probed.mixing_is_certain:
        return
    yield Cause(
        "batch-mixing",
        f"module {evidence.probed.mixed_where}",
        f"exchanging sample 0 moves the outputs of the others by {number(moved)} of their size, first in "
        f"{evidence.probed.mixed_where}, in evaluation mode",
        "keep axis 0 for the samples: look at reshape, permute, dim=0 and batch_first",
        "shown",
        {"moved": moved},
        certain=True,
        weight=0.88,
    )


def noisy(evidence: Evidence) -> Iterator[Cause]:
    """The forward pass is too random."""
    built = rebuilt(evidence)
    if built is not None:
        yield Cause(
            "stochastic",
            built.line or "forward",
            f"{built.notes['by']} is built anew in every forward pass, with other weights each time",
            "build it once, in __init__",
            "shown",
            {"spread": evidence.probed.random_training},
            certain=True,
            weight=0.97,
        )
        return
    attempt = evidence.attempt("same random numbers")
    proven = attempt is not None and attempt.passed
    spread, still = evidence.probed.random_training, evidence.probed.random_evaluation
    drop = next(
        (op for op in evidence.probed.ops if op.name == "random_in_evaluation" and "dropout" in op.notes.get("by", "")),
        None,
    )
    if drop is not None and (not evidence.learned or still > 0):
        yield Cause(
            "stochastic",
            drop.where,
            f"{drop.notes['by']} (p={number(drop.numbers.get('p', 0))}) goes on in evaluation mode: two passes "
            f"differ by {number(still)} of the output's size"
            + proof(attempt, "with the same random numbers at every step"),
            "pass training=self.training, or an nn.Dropout that __init__ builds",
            "proven" if proven else "shown",
            {"spread": still},
            certain=True,
            weight=0.93,
        )
        return
    if evidence.learned or spread <= 0.01 or evidence.stochastic:
        return
    where = next((op for op in evidence.probed.ops if op.name == "random"), None)
    yield Cause(
        "stochastic",
        where.where if where else "the forward pass",
        f"two forward passes of different seeds differ by {number(spread)} of the output's size"
        + (", in evaluation mode too" if still > 0.01 else "")
        + proof(attempt, "with the same random numbers at every step"),
        "lower the dropout or the noise for this test; where chance is meant, declare stochastic",
        "proven" if proven else "shown" if spread > 0.3 else "observed",
        {"spread": spread},
        weight=0.85 if spread > 0.2 else 0.5,
    )


def modes_differ(evidence: Evidence) -> Iterator[Cause]:
    """What was learnt in training mode is not there in evaluation mode."""
    probed = evidence.probed
    curve = evidence.objective
    off = [e for _, e in evidence.events("mode") if not e.numbers.get("train", 1) and e.numbers.get("whole")]
    trained_off = (
        bool(evidence.steps)
        and evidence.own_step
        and bool(off)
        and bool(probed.mode_modules)
        and all(not m.training for m in evidence.steps[0].modules)
    )
    if trained_off:
        yield Cause(
            "mode-gap",
            shorten(probed.mode_modules),
            "the train step puts the model into evaluation mode and trains it there",
            "call model.train() before training",
            "shown",
            {},
            certain=True,
            weight=0.85,
        )
        return
    if (
        not evidence.learned
        or probed.evaluation is None
        or probed.evaluation_settled is None
        or probed.training is None
        or not curve
    ):
        return
    fall = curve[0] - probed.training
    if fall <= 0 or probed.evaluation_settled < probed.training + 0.3 * fall:
        yield from _lagging(evidence, fall)
        return
    yield Cause(
        "mode-gap",
        shorten(probed.mode_modules) or "what forward does with self.training",
        f"the objective is {number(probed.training)} in training mode and {number(probed.evaluation_settled)} in "
        f"evaluation mode (it started at {number(curve[0])}), running statistics settled",
        "look at momentum of batch norm, at self.training in forward, at dropout by hand",
        "shown",
        {"training": probed.training, "evaluation": probed.evaluation_settled},
        certain=True,
        weight=0.9,
    )


def _lagging(evidence: Evidence, fall: float) -> Iterator[Cause]:
    """Running statistics that more steps would bring up to date, in a run that was to agree with its evaluation."""
    probed = evidence.probed
    missed = any(finding.name == "train_val" and not finding.passed for finding in evidence.findings)
    if not missed or not probed.mode_modules or probed.evaluation is None or probed.training is None:
        return
    if fall <= 0 or probed.evaluation < probed.training + 0.1 * fall:
        return
    yield Cause(
        "mode-gap",
        shorten(probed.mode_modules),
        f"on the same sample the objective is {number(probed.training)} in training mode and "
        f"{number(probed.evaluation)} in evaluation mode: running statistics lag behind the weights",
        "raise the momentum of batch norm, or use a norm without running statistics for small batches",
        "observed",
        {"training": probed.training, "evaluation": probed.evaluation},
        weight=0.8,
    )


def leaks(evidence: Evidence) -> Iterator[Cause]:
    """The answer is in the input."""
    compared = [op for op in noted(evidence) if op.name == "difference" or "target_high" in op.numbers]
    if compared and all(op.notes.get("added") for op in compared):
        yield Cause(
            "leak",
            compared[0].where,
            "what is compared is an output plus the target itself: a model that returns zeros is perfect",
            "compare the output by itself, or add what is not the target",
            "shown",
            {},
            certain=True,
            weight=0.94,
        )
        return
    for where, what in evidence.probed.leaks:
        same = "very value" in what  # either the targets were not shifted, or the mask lets the place itself through
        yield Cause(
            "leak",
            where,
            what,
            "shift the targets by one place, or leave the place itself out of the mask"
            if same
            else "mask the future (is_causal=True), and keep the target out of the input",
            "shown",
            {},
            certain=True,
            weight=0.9,
        )
        if same:
            advice = "shift the targets by one place: tokens[:, :-1] in, tokens[:, 1:] out"
            yield Cause("target-mismatch", where, what, advice, "shown", {}, certain=True, weight=0.89)
        return


RULES = (ignored, padding_alone, mixed, noisy, modes_differ, leaks)
