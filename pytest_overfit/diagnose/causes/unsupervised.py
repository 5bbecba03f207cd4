"""What is in the batch to be learnt, and no term of the loss teaches: samples, classes, places."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import Comparison, Squashed
from pytest_overfit.diagnose.queries import exchanged
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

VALID = re.compile(r"(^|[._])(?<!val_)(?<!test_)(masks?|valid|validity|visible)(_masks?)?$")  # of a key
SATURATED = 50.0  # between two logits: the smaller one's probability and its slope may be rounded to nothing
FEW = 4  # labels that are alike by chance
FAR = 3.0  # times the limit, and what the others have
ALONE = 1e-4  # of an output: samples that move each other more teach through each other


def unsupervised(evidence: Evidence) -> Iterator[Cause]:
    """Samples of which no label counts, though nothing declares them to be none."""
    taught = evidence.record.supervision.taught if evidence.record.supervision else ()
    whole = [line for line in taught if line.term == "objective" and line.silent]
    if not whole or any(line.samples and not line.silent for line in taught if line.term == "objective"):
        return
    silent = set.intersection(*(set(line.silent) for line in whole))
    for line in whole:
        rows = sorted(silent & set(line.labels.unlabelled if line.labels else ()))
        if line.labels is not None and rows:
            values = " or ".join(line.labels.left_out)
            yield Cause(
                "unsupervised",
                f"samples {', '.join(map(str, rows))} of {line.labels.key}",
                f"{len(rows)} of {line.samples} samples teach nothing: all of their {line.labels.key} are {values}, "
                f"and {line.counted} of {line.places} places of {line.output} count",
                f"look at what sets {line.labels.key} to {values} there (a header that is not found, a row that is cut "
                "off before its answer), or leave these samples out of the batch",
                evidence={"silent": len(rows), "samples": line.samples or 0},
                certain=True,
                weight=0.95,
            )
            return


def without_numbers(evidence: Evidence) -> Iterator[Cause]:
    """Samples that teach nothing, and whose targets are NaN: the loss leaves them out without a word."""
    taught = evidence.record.supervision.taught if evidence.record.supervision else ()
    silent = [set(line.silent) for line in taught if line.term == "objective" and line.samples]
    for tensor in evidence.probed.tensors:
        rows = set(tensor.empty).intersection(*silent) if silent and not tensor.is_input else ()
        if rows:
            yield Cause(
                "nonfinite-data",
                f"samples {shorten(map(str, sorted(rows)))} of {tensor.key}",
                f"{len(rows)} of {tensor.shape[0]} samples teach nothing: {tensor.key} holds no number there, and the "
                "loss leaves them out",
                f"look at what writes {tensor.key}, a unit or a logarithm that makes NaN, or leave these samples out "
                "of the batch",
                evidence={"silent": len(rows), "samples": tensor.shape[0]},
                certain=True,
                weight=0.95,
            )
            return


def silenced_class(evidence: Evidence) -> Iterator[Cause]:
    """A class of which nothing counts, though the output has a place for it and no ignore_index names it."""
    named = {compared.ignored for _, compared in evidence.ops(Comparison)}
    ranges = [(fact.low, fact.high) for _, fact in evidence.ops(Comparison)]
    ranges += [(fact.low, fact.high) for _, fact in evidence.ops(Squashed)]
    if any(low is not None and high is not None and high - low > SATURATED for low, high in ranges):
        return  # a class that is always predicted has no slope where it is right
    if exchanged(evidence):
        return
    for line in evidence.record.supervision.taught if evidence.record.supervision else ():
        labels = line.labels
        if labels is None or not labels.silenced or int(labels.silenced) in named:
            continue
        count, key = labels.left_out[labels.silenced], labels.key
        yield Cause(
            "unsupervised",
            f"class {labels.silenced} of {key}",
            f"{labels.silenced}, one of the {line.classes} classes of {line.output}, teaches nothing at any of its "
            f"{count} of {line.places} places: with another label they count, and where that stood this one does not",
            f"give class {labels.silenced} a weight above 0, or say ignore_index={labels.silenced} where that is meant",
            evidence={"places": count, "classes": line.classes},
            certain=True,
            weight=0.97,
        )
        return


def untaught_ends(evidence: Evidence) -> Iterator[Cause]:
    """The last tokens of every row of a decoder, that no place which counts is to predict."""
    key, tokens = evidence.probed.untaught
    if tokens:
        last = f"the last {tokens} tokens" if tokens > 1 else "the last token"
        yield Cause(
            "unsupervised",
            f"{last} of every row of {key}",
            f"rows go on to where {key} ends, and no place before {last} counts: the model never learns to end",
            "ignore padding by its place, not by its token (pad_token = eos_token); shift a mask as labels are shifted",
            evidence={"tokens": tokens},
            certain=True,
            weight=0.95,
        )


def masked_otherwise(evidence: Evidence) -> Iterator[Cause]:
    """The loss goes by another row of the mask of padding, or by the other side of it."""
    how, padding, untaught = evidence.probed.counted
    if how:
        yield Cause(
            "unsupervised",
            "the mask of the loss",
            f"the places that count in the loss are those of the batch's mask {how}: {padding} of them are padding, "
            f"and {untaught} places with content teach nothing",
            "weigh every place by its own entry of the mask, 1 where there is content",
            evidence={"padding": padding, "untaught": untaught},
            certain=True,
            weight=0.95,
        )


def unlearnt(evidence: Evidence) -> Iterator[Cause]:
    """Samples that are in no mean of the objective at the end, and have not been learnt."""
    found, limit, mixed = evidence.probed.unlearnt, evidence.limit_of_objective(), evidence.probed.mixed
    if found is None or not evidence.learned or limit is None or (mixed is not None and mixed > ALONE):
        return
    rows, alone, others = found
    if alone > FAR * max(limit, others):
        yield Cause(
            "unsupervised",
            f"samples {shorten(map(str, rows))}",
            f"the objective is the mean over the others: {len(rows)} samples have no part in it at the end, and by "
            f"themselves an objective of {number(alone)}, the others of {number(others)}: they are not learnt",
            "let the loss read all samples: in the last chunk what is left over too, of hard ones those of the largest "
            "loss, not of the smallest",
            evidence={"alone": alone, "others": others},
            certain=True,
            weight=0.93,
        )


def unread_mask(evidence: Evidence) -> Iterator[Cause]:
    """A mask of the shape of a target of numbers, that nothing reads: what it leaves out is learnt too."""
    seen, tensors = evidence.record.supervision, evidence.probed.tensors
    if seen is None:
        return
    read = [t for t in tensors if t.key not in seen.unread and t.key not in seen.inputs and t.dtype.startswith("float")]
    masks = [t for t in tensors if t.key in seen.unread and VALID.search(t.key) and (t.low, t.high) == (0.0, 1.0)]
    found = next(((mask, t) for mask in masks for t in read if t.shape == mask.shape), None)
    if found is not None:
        mask, target = found
        yield Cause(
            "target-mismatch",
            mask.key,
            f"nothing reads {mask.key}, which is 0 at {1 - mask.mean:.0%} of the places of {target.key}: what it "
            "leaves out counts as a target",
            f'weigh or index by it: error[batch["{mask.key}"]].mean(); where it is meant, allow=["target-mismatch"]',
            evidence={"left_out": 1 - mask.mean},
            certain=True,
            weight=0.9,
        )


def one_label_left(evidence: Evidence) -> Iterator[Cause]:
    """Of several labels all that count are the same: an output that is constant is right."""
    taught = evidence.record.supervision.taught if evidence.record.supervision else ()
    for line in taught:
        labels = line.labels
        if labels is None or line.term != "objective" or labels.values != 1 or not labels.left_out:
            continue
        ((label, count),) = labels.counted.items()
        if count >= FEW and labels.unexplained == 0:
            yield Cause(
                "degenerate-batch",
                labels.key,
                f"all {count} places of {labels.key} that count are {label}, and {' or '.join(labels.left_out)} counts "
                "nowhere: an output that is the same everywhere is right",
                "look at what is ignored: an ignore_index that is a class, labels that are shifted into it",
                evidence={"counted": count},
                certain=True,
                weight=0.96,
            )
            return


def one_number_left(evidence: Evidence) -> Iterator[Cause]:
    """Of a target of many numbers one alone counts: a mask that is the wrong way round leaves what is missing."""
    taught = evidence.record.supervision.taught if evidence.record.supervision else ()
    for line, one in [(line, line.one) for line in taught if line.term == "objective" and line.one][:1]:
        yield Cause(
            "unsupervised",
            one.key,
            f"all {line.counted} places of {line.output} that count want {number(one.number)}, and the "
            f"{line.places - line.counted} others, which hold {one.others} other numbers of {one.key}, count nowhere: "
            "an output that is the same everywhere is right",
            "look at the mask or index that chooses what is compared: the wrong way round it leaves what is missing",
            evidence={"counted": line.counted, "others": one.others},
            certain=True,
            weight=0.96,
        )


def silent_samples(evidence: Evidence) -> Iterator[Cause]:
    """Samples along whose outputs the objective has no slope, whatever they hold."""
    pairs, mixed = evidence.probed.pairs, evidence.probed.mixed
    if pairs is not None and pairs.cut:
        yield Cause(
            "unsupervised",
            pairs.cut,
            f"{pairs.cut}, have no slope, whatever stands there, though {pairs.target} has a label for each of them",
            "let the loss read all places: a slice of what is flattened leaves out those at its end",
            certain=True,
            weight=0.94,
        )
        return
    if pairs is None or not pairs.silent or (mixed is not None and mixed > ALONE and not pairs.alone):
        return
    count = len(pairs.silent)
    yield Cause(
        "unsupervised",
        f"samples {shorten(map(str, pairs.silent))}",
        f"{count} of {pairs.samples} samples teach nothing: the objective has no slope along their outputs, not "
        f"even with {'the input' if pairs.by_target else 'what a sample holds'} that counts",
        "let the loss read all samples, and detach none: += in place of =, no return inside the loop, a slice of the "
        "batch, a weight of 0"
        if not pairs.by_target
        else "look at their targets: one that is longer than the output has an infinite loss, which zero_infinity or "
        "nan_to_num makes zero; leave such samples out of the data, or let the output keep more places",
        evidence={"silent": count, "samples": pairs.samples},
        certain=True,
        weight=0.94,
    )


def unread_items(evidence: Evidence) -> Iterator[Cause]:
    """Of a list of samples, a term reads some and nothing of others; one term for each of several views is meant."""
    seen = evidence.record.supervision
    if seen is None:
        return
    items: dict[str, list[str]] = {}
    for key in seen.answers:
        index, _, name = key.partition(".")
        if index.isdecimal() and name:
            items.setdefault(index, []).append(key)
    terms = [name for name in next(iter(seen.answers.values()), {}) if name != "objective"] or ["objective"]
    read = {term: {key for keys in items.values() for key in keys if seen.answers[key].get(term)} for term in terms}
    for term, keys in read.items():
        own = {key.partition(".")[0] for key in keys}
        names = {key.partition(".")[2] for key in keys}
        silent = [key for index in items if index not in own for key in items[index]]
        # What another term reads of that sample, and not of this one's, is its own.
        unread = [
            key
            for key in silent
            if (name := key.partition(".")[2]) in names
            and not any(key in other and not {f"{i}.{name}" for i in own} & other for other in read.values())
        ]
        apart = any(key not in unread for key in silent if key.partition(".")[2] in names)
        if own and unread and not apart and not _empty(evidence, unread):
            yield Cause(
                "term-missing",
                f"{', '.join(unread)} in {term}",
                f"{term} answers to {len(own)} of {len(items)} samples: {', '.join(unread)} can be changed at will",
                "sum over the samples: += in place of =, and no return inside the loop",
                evidence={"unread": len(unread), "samples": len(items)},
                certain=True,
                weight=0.94,
            )
            return


def _empty(evidence: Evidence, keys: list[str]) -> bool:
    """Whether a sample of a list has an entry without elements: there is nothing of it to be read."""
    items = {key.partition(".")[0] for key in keys}
    return any(t.key.partition(".")[0] in items and 0 in t.shape for t in evidence.probed.tensors)


FAMILY = Family(
    group="loss",
    order=101,
    rules=(
        *(silenced_class, unsupervised, without_numbers, untaught_ends, masked_otherwise, one_label_left),
        *(one_number_left, silent_samples, unlearnt, unread_items, unread_mask),
    ),
    docs="""
### unsupervised

Samples that should be learnt are in no term: all of their labels are ignored, and nothing declares that.

```python
class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 32), nn.Linear(32, 4)

    def forward(self, tokens):
        return self.head(self.embed(tokens))


def loss(model, batch):
    return F.cross_entropy(model(batch["tokens"]).flatten(0, 1), batch["labels"].flatten())


tokens = torch.arange(12).view(3, 4)
labels = tokens % 4
labels[1] = -100  # fixed: labels[1, 0] = -100
result = run_overfit(Tagger, {"tokens": tokens, "labels": labels}, loss, optimizer=adam, max_steps=200)
```

- **Symptom**: none: the rest is memorised.
- **Evidence**: shown, certain: the slope of the objective along every output, sample by sample (the supervision map,
  which every report shows). There is none in these samples, whose labels are all of one value that counts nowhere. A
  mask or a weight that is zero there declares it; labels that are strewn, as those of a masked language model, may be
  missing by chance.
  Of a class the labels themselves: with another one its places count, and where that stood none does. Of a target of
  numbers: the places that count have one and the same, and no other place has it. Of a decoder the ends of its rows, by
  a mask of the batch: no place before the last token counts in any of them; or the places that count are those of the
  mask of another sample. Of samples that are left out at the end the objective by
  themselves, in a batch full of copies: far above that of the others, whose mean the objective is.
- **Fix**: look at what writes the labels; leave samples without any out of the batch.
""",
)
