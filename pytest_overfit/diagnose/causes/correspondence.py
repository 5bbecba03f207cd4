"""Predictions and targets that do not belong together: another order, another place, another range."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import Comparison, Op, with_fact
from pytest_overfit.diagnose.queries import exchanged
from pytest_overfit.judge.finding import number


def mismatched(evidence: Evidence) -> Iterator[Cause]:
    """What is compared is the batch's target with other axes, classes or labels, and nowhere as it is."""
    compared, seen = list(_compared(evidence)), evidence.record.supervision
    inputs = seen.inputs if seen is not None else ()  # one may fit by chance the labels of another
    plain = {fact.origin for _, fact in compared if fact.origin and not fact.turned}
    for op, fact in compared:
        key, turned = (fact.origin, fact.turned) if fact.relabelled[0] in ("", *inputs) else fact.relabelled
        if not turned or key in plain:
            continue
        yield Cause(
            "target-mismatch",
            op.where,
            f"the loss compares with {key} {turned}",
            f"compare with {key} as the batch has it",
            certain=True,
            weight=0.95,
        )
        return


def _compared(evidence: Evidence) -> Iterator[tuple[Op, Comparison]]:
    """What the first step compared, then what the trained model does."""
    return with_fact((*evidence.noted, *evidence.probed.ops), Comparison)


def compared_with_input(evidence: Evidence) -> Iterator[Cause]:
    """The output is held against what the model is given, and nothing reads what has the shape of an answer."""
    seen, shapes = evidence.record.supervision, {t.key: t.shape for t in evidence.probed.tensors}
    compared = list(_compared(evidence))
    if seen is None or not compared or any(f.adds_target or f.origin not in seen.inputs for _, f in compared):
        return
    op, fact = compared[0]
    left = next((key for key in seen.unread if shapes.get(key) == shapes.get(fact.origin)), None)
    if left is not None:
        yield Cause(
            "target-mismatch",
            op.where,
            f"the loss compares with {fact.origin}, which the model is given, and nothing reads {left}, of the same "
            "shape",
            f"compare with {left}",
            certain=True,
            weight=0.97,
        )


def mispaired(evidence: Evidence) -> Iterator[Cause]:
    """A prediction is held against the answer of another sample."""
    pairs = evidence.probed.pairs
    owned = pairs.owned if pairs is not None else None
    if owned is not None:
        yield Cause(
            "target-mismatch",
            f"output {owned[0]}",
            f"elements of one row of {owned[0]} are held against {owned[1]} of different samples: other values there "
            "move the gradient of single elements in the rows of others, and of nothing else",
            "exchange axes with permute or transpose, not with reshape or view, on the way into the loss, and repeat "
            "targets as the outputs are repeated",
            certain=True,
            weight=0.94,
        )
        return
    if pairs is None or not pairs.wrong:
        return
    sample, other = pairs.wrong[0]
    one = len({target for _, target in pairs.wrong}) == 1 and (len(pairs.wrong) > 1 or pairs.samples == 2)
    yield Cause(
        "target-mismatch",
        f"output {pairs.output}",
        f"{len(pairs.wrong)} of {pairs.samples} samples are held against the {pairs.target} of another one: what "
        f"{pairs.output} is for sample {sample} answers to sample {other}'s",
        "compare every sample with its own target: target[:1], a broadcast or an index takes one for all"
        if one
        else "bring both into one order: sort or repeat the targets as the inputs are, undo the sorting, or shuffle "
        "neither",
        evidence={"wrong": len(pairs.wrong), "samples": pairs.samples},
        certain=True,
        weight=0.95,
    )


def turned(evidence: Evidence) -> Iterator[Cause]:
    """Inputs and targets of one end of a row, or of one corner of an image, meet at different ends of an output."""
    if (found := evidence.probed.turned) is None:
        return
    corner, near, held = (f"[{', '.join(map(str, at))}]" for at in (found.corner, found.near, found.held))
    yield Cause(
        "target-mismatch",
        f"output {found.output}",
        f"what {found.given} has at place {corner} reaches {found.output} at {near} and not at {held}, which is held "
        f"against what {found.target} has at {corner}" + (", where chance turns one of them" if found.drawn else ""),
        "turn inputs and targets together, or the outputs back: a flip, a transpose or a crop of one alone teaches the "
        "places of the other",
        certain=True,
        weight=0.95,
    )


def scrambled(evidence: Evidence) -> Iterator[Cause]:
    """Classes and places of an output are mixed up by a reshape."""
    for op, compared in _compared(evidence):
        by_time, moved = op.name == "ctc_loss", "movedim(-1, 1)"
        if compared.scrambled and by_time:  # it takes (time, samples, classes)
            time, samples, classes = op.shapes[0]
            middle = compared.scrambled.startswith(f"{(samples, classes, time)} ") and classes != time
            moved = "permute(2, 0, 1)" if middle else "transpose(0, 1)"
        if compared.scrambled:
            yield Cause(
                "target-mismatch",
                op.where,
                f"an output {compared.scrambled} without its axes having been exchanged: its "
                + ("rows do not belong to its samples" if by_time else "classes do not belong to its places"),
                "permute first: logits.movedim(1, -1).reshape(-1, classes)"
                if len(op.shapes[0]) == 2
                else f"exchange axes in place of the reshape: logits.{moved}",
                certain=True,
                weight=0.985,
            )
            return


def exchanged_arguments(evidence: Evidence) -> Iterator[Cause]:
    """What the model returns stands where a loss takes its target, and the target in its place."""
    if evidence.learned:
        return
    for op, compared in exchanged(evidence):
        yield Cause(
            "target-mismatch",
            op.where,
            f"{op.name} gets the output as target and the target as {compared.exchanged}",
            f"exchange its arguments: what is predicted comes first, {op.name}(predicted, labels)"
            if compared.exchanged == "input"
            else f"exchange its arguments: {op.name}(predicted, target, {compared.exchanged})",
            weight=0.995,
        )
        return


def impossible_targets(evidence: Evidence) -> Iterator[Cause]:
    """Targets of a loss that takes probabilities, outside of 0..1."""
    for op, compared in evidence.ops(Comparison):
        low, high = compared.targets or (0.0, 0.0)
        least, most = compared.predictions or (-1.0, 2.0)
        # Labels stand in its place, and what stands in theirs is not the batch's, though it has no gradient.
        turned = not compared.origin and least >= 0 and most <= 1
        learns = compared.differentiable or turned
        if op.name.startswith("binary_cross_entropy") and learns and (low < 0 or high > 1) and not compared.exchanged:
            yield Cause(
                "target-mismatch",
                op.where,
                f"{op.name} takes targets from 0 to 1, and gets {number(low)} to {number(high)}: it has no lower "
                "bound then",
                f"exchange its arguments: what is predicted comes first, {op.name}(predicted, labels)"
                if turned
                else "map the labels to 0 and 1",
                evidence={"low": low, "high": high},
                certain=True,
                weight=0.96,
            )
            return


def padding_counts(evidence: Evidence) -> Iterator[Cause]:
    """The loss reads labels where the attention mask says that there is no token."""
    seen = evidence.record.supervision
    if seen is not None and seen.padding:
        yield Cause(
            "target-mismatch",
            "labels",
            f"{seen.padding} labels stand where attention_mask is 0, and the loss counts them: padding is learnt too",
            "set the labels of padding to -100, which the loss leaves out",
            evidence={"labels": seen.padding},
            certain=True,
            weight=0.93,
        )


def wrong_place(evidence: Evidence) -> Iterator[Cause]:
    """A decoder that has learnt to predict its own token, or the one after the next."""
    after = next((leak for leak in evidence.probed.leaks if leak.own == "after"), None)
    if after is not None:
        yield Cause(
            "target-mismatch",
            after.where,
            f"labels are shifted twice: {after.what}",
            "shift once: the model, its loss function, or the data",
            certain=True,
            weight=0.95,
        )
        return
    said = evidence.record.generated
    if said is None or len(said.ahead) < 3 or said.ahead[1] > 0.5 or not evidence.learned:
        return
    itself, _, later = said.ahead
    if max(itself, later) < 0.9:
        return
    observed, advice = (
        ("predicts the token after the next", "shift once: the models of transformers shift labels in their loss")
        if later > itself
        else ("predicts the very token that it reads", "shift the labels: position t has to predict token t + 1")
    )
    yield Cause(
        "target-mismatch",
        "labels",
        f"at {max(itself, later):.0%} of the places the trained decoder {observed}, at {said.ahead[1]:.0%} the next "
        "one",
        advice,
        evidence={"itself": itself, "next": said.ahead[1], "after_next": later},
        certain=True,
        weight=0.96,
    )


FAMILY = Family(
    group="loss",
    order=110,
    rules=(
        exchanged_arguments,
        mismatched,
        compared_with_input,
        mispaired,
        turned,
        scrambled,
        impossible_targets,
        padding_counts,
        wrong_place,
    ),
    docs="""
### target-mismatch

Prediction and target do not correspond: another order, another class, another index.

```python
def loss(model, batch):
    target = batch[1].flip(0)  # fixed: target = batch[1]
    return F.cross_entropy(model(batch[0]), target)


result = run_overfit(net, (features, torch.randint(0, 3, (12,))), loss, optimizer=adam, max_steps=200)
```

- **Symptom**: none on one batch, which is memorised all the same: training on more data never generalises.
- **Evidence**: shown, certain: what the loss compares with is a tensor of the batch, turned or shifted, or an input
  of the model while nothing reads another tensor of that shape, or a mask of its shape; or samples get other targets,
  and the slopes along the outputs of other samples change. Or one corner of an image, or end of a row, moves an
  output at another one than the target's: where a model turns what it gets, or chance turns one of both. Of tokens:
  labels under an `attention_mask` of 0 to which the loss answers, targets behind the end that a mask or lengths tell
  of, or a decoder that has met its limit and predicts the token after the next, or the one that it reads.
- **Fix**: compare with the target as the batch has it; shift targets of a sequence by one place, and only once; give
  padding the label -100.
""",
)
