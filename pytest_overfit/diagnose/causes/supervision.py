"""What of the batch, and of what the model returns, the loss reads at all."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Comparison, Squashed
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

SATURATED = 50.0  # between two logits: the smaller one's probability and its slope may be rounded to nothing
FEW = 4  # labels that are alike by chance
ALONE = 1e-4  # of an output: samples that move each other more teach through each other


def vacuous(evidence: Evidence) -> Iterator[Cause]:
    """Nothing is supervised, or nothing can be wrong."""
    empty = next((op for op, compared in evidence.ops(Comparison) if compared.supervised == 0), None)
    itself = next((op for op, compared in evidence.ops(Comparison) if compared.same), None)
    curve = evidence.objective
    zero = bool(curve) and max(map(abs, curve)) == 0
    limited = filter(None, map(evidence.record.terms.get, evidence.limits))
    silent = next((t for t in limited if len(c := evidence.record.curves.get(t, ())) > 1 and not any(c)), None)
    if empty is not None:
        yield Cause(
            "vacuous",
            empty.where,
            f"{empty.name} has no supervised element: every label is ignored",
            "look at the labels, or fail on a batch without any",
            evidence={"supervised": 0.0},
            certain=True,
            weight=0.975,
        )
    elif itself is not None and evidence.record.non_finite is None and (zero or _deaf(evidence)):
        yield Cause(
            "vacuous",
            itself.where,
            "the prediction is compared with itself",
            "compare it with the target",
            certain=True,
            weight=0.96,
        )
    elif (zero or silent) and evidence.record.non_finite is None:
        what = "the objective" if zero else silent
        yield Cause(
            "vacuous",
            LOSS if zero else f"term {silent}",
            f"{what} is exactly 0 in all {len(curve)} steps: nothing is supervised, or nothing can be wrong",
            "look for an empty mask, a margin that every sample keeps, a target of zeros",
            evidence={"objective" if zero else str(silent): 0.0},
            certain=True,
            weight=0.965,
        )
    elif (
        "supervised" in evidence.missed
        and evidence.record.supervision is not None
        and evidence.record.non_finite is None
    ):
        seen = evidence.record.supervision
        if seen.answers and len(seen.unread) == len(seen.answers):
            yield Cause(
                "vacuous",
                LOSS,
                f"the loss does not change when any of {', '.join(seen.unread)} does",
                "compare the prediction with the target of the batch",
                evidence={"unread": len(seen.unread)},
                certain=True,
                weight=0.8,
            )


def _deaf(evidence: Evidence) -> bool:
    """Whether the loss answers to no target of the batch."""
    seen = evidence.record.supervision
    return (
        seen is not None
        and bool(seen.answers)
        and all(key in seen.inputs or key in seen.unread for key in seen.answers)
    )


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


def silenced_class(evidence: Evidence) -> Iterator[Cause]:
    """A class of which nothing counts, though the output has a place for it and no ignore_index names it."""
    named = {compared.ignored for _, compared in evidence.ops(Comparison)}
    ranges = [(fact.low, fact.high) for _, fact in evidence.ops(Comparison)]
    ranges += [(fact.low, fact.high) for _, fact in evidence.ops(Squashed)]
    if any(low is not None and high is not None and high - low > SATURATED for low, high in ranges):
        return  # a class that is always predicted has no slope where it is right
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
        "even with what a sample holds that counts",
        "let the loss read all samples, and detach none: += in place of =, no return inside the loop, a slice of the "
        "batch, a weight of 0",
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


def ignores_output(evidence: Evidence) -> Iterator[Cause]:
    """The loss answers to nothing that the model returns."""
    if evidence.probed.weights_alone:
        yield Cause(
            "loss-ignores-output",
            LOSS,
            "no output of a model that is trained is in what is differentiated, and its gradient is the same for "
            "another batch: it comes from the weights alone",
            "compute the loss from the output of the model that is trained",
            certain=True,
            weight=0.95,
        )
        return
    found = evidence.probed.floor
    if found is not None and found.low and len(found.unread) == len(found.low) and not evidence.learned:
        yield Cause(
            "loss-ignores-output",
            LOSS,
            f"no gradient of the loss reaches {', '.join(found.unread)}",
            "compare the model's own output with the target",
            evidence={"outputs": len(found.unread)},
            certain=True,
            weight=0.9,
        )


FAMILY = Family(
    group="loss",
    order=100,
    rules=(
        *(silenced_class, vacuous, unsupervised, untaught_ends, one_label_left),
        *(one_number_left, silent_samples, unread_items, ignores_output),
    ),
    docs="""
### vacuous

The loss supervises nothing: an empty mask, labels that are all ignored, a prediction compared with itself.

```python
def loss(model, batch):
    error = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    valid = batch[1] > 2  # fixed: valid = batch[1] >= 0
    return (error * valid).sum() / valid.sum().clamp(min=1)


result = run_overfit(net, (features, classes), loss, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss, or a term that has a limit, is 0, or already below its limit, before any training.
- **Evidence**: shown, certain: the objective, and how it answers when targets are changed.
- **Fix**: mend the mask or the labels; let a batch without any supervision be an error.

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
  a mask of the batch: no place before the last token counts in any of them.
- **Fix**: look at what writes the labels; leave samples without any out of the batch.

### loss-ignores-output

The loss does not depend on what the model returns.

```python
def loss(model, batch):
    restored = model(batch["noisy"])
    return F.mse_loss(batch["noisy"], batch["clean"])  # fixed: return F.mse_loss(restored, batch["clean"])


batch = {"noisy": values + 0.3 * torch.randn(12, 3), "clean": values}
result = run_overfit(net(width=3), batch, loss, optimizer=adam, max_steps=400)
```

- **Symptom**: `backward()` raises, or the loss is the same at every step.
- **Evidence**: shown, certain: no output of the model is in the graph of the loss, and none was cut off; or the
  gradient is zero for all of them; or it is that of the weights alone, the same for another batch.
- **Fix**: compare the model's output with the target.
""",
)
