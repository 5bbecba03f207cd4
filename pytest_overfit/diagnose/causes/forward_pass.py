"""What outputs depend on: inputs, other samples, chance, the mode, the answer itself."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Comparison, FreshTensor, Squashed, keys_read
from pytest_overfit.diagnose.pairs import LeftGraphs, WholeNumbers
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

FLAT = 1e-6  # deviation over the samples relative to the size: they are all alike
MOVED = 1e-3  # of the size of the outputs: a row that is asked by itself is rounded otherwise
ROUNDED = 1e-4  # the same of the others, where none moves them: it is their place in the batch that does
MENDING = {
    "of the next sample": "give every sample its own row of",
    "of the sample before": "give every sample its own row of",
    "turned around": "pad on the other side, or flip(1)",
    "inverted": "invert",
}
POLARITY = "a key_padding_mask is True where a key is left out, an attn_mask of booleans where it takes part"


def ignored(evidence: Evidence) -> Iterator[Cause]:
    """An argument of the model, or a sample of the batch, that changes nothing."""
    pairs = evidence.probed.pairs
    if pairs is not None and pairs.unread:
        yield Cause(
            "input-ignored",
            f"samples {shorten(map(str, pairs.unread))}",
            f"no row of {pairs.output} is made of {len(pairs.unread)} of {pairs.samples} samples: they can be changed "
            "at will, and other samples are what stands in their rows",
            "let the model read every sample: x[:1], an expand or an index takes some for all",
            evidence={"unread": len(pairs.unread), "samples": pairs.samples},
            certain=True,
            weight=0.95,
        )
    gone = (*evidence.probed.ignored, *evidence.probed.ignored_slices)
    fresh = (pair for pair in evidence.ops(FreshTensor) if pair[0].region != LOSS)
    zeroed = next(fresh, None)
    if not gone or evidence.record.stop in ("detached", "non_finite"):
        return
    made = ""
    if zeroed is not None:
        made = f"; {zeroed[1].made_by}({zeroed[1].made_of}) is used in its place in {zeroed[0].where}"
    yield Cause(
        "input-ignored",
        ", ".join(gone),
        f"{', '.join(gone)} can be changed at will, and no output of the model changes{made}",
        "use it in forward; if that is meant, leave it out of the call",
        evidence={"inputs": len(gone)},
        certain=evidence.learned,
        weight=0.9 if evidence.learned or zeroed else 0.75,
    )


def unread(evidence: Evidence) -> Iterator[Cause]:
    """Nothing reads a tensor of the batch, and all samples get one row of an output that the loss wants to differ."""
    seen, samples = evidence.record.supervision, evidence.probed.samples or 0
    if seen is None or not seen.unread or evidence.learned or samples < 2:
        return
    flat = [o for o in evidence.probed.outputs if o.spread is not None and o.spread <= FLAT and o.gradient]
    sized = [t for t in evidence.probed.tensors if t.key in seen.unread and t.shape[:1] == (samples,)]
    differ = [t.key for t in sized if (t.distinct_rows or 0) > 1]
    if flat and differ:
        yield Cause(
            "input-ignored",
            shorten(differ),
            f"nothing reads {shorten(differ)}, whose {samples} samples differ, and {flat[0].name} is one row for all",
            f"hand {differ[0]} to the model as it stands in the batch: not zeros of its shape, and not another tensor",
            evidence={"unread": len(differ), "samples": samples},
            weight=0.93,
        )


def masks(evidence: Evidence) -> Iterator[Cause]:
    """An attention whose mask leaves out what it is to read, or lets through what it is not."""
    moves = evidence.probed.padding
    ahead = {leak.module for leak in evidence.probed.leaks}  # padding is of the future
    if moves is not None and (moves.mended or (moves.where and moves.where not in ahead)):
        seen = f"without its padding the outputs of row {moves.row} move by {number(moves.moved)} of their size"
        yield Cause(
            "input-ignored",
            moves.told if moves.mended else f"module {moves.where}",
            f"{seen}, and by {number(moves.left)} with {moves.told} {moves.mended}: it hides the wrong places"
            if moves.mended
            else f"{seen}: what stands under it moves the other places in {moves.where}, and in no other of its kind",
            f"{MENDING[moves.mended]} {moves.told} where the model is called, or in its forward: {POLARITY}"
            if moves.mended
            else f"look at the mask inside {moves.where}, and at its axes: x.transpose(1, 2), not view, for heads",
            evidence={"moved": moves.moved},
            certain=True,
            weight=0.96,
        )
        return
    attentions = list(keys_read((*evidence.noted, *evidence.probed.ops)))
    heeded = any(reads.heeds for _, reads in attentions)  # elsewhere: it is padding by the model's own word
    for op, reads in attentions:
        numbers: dict[str, float] = {}
        padding = reads.padding and moves is not None and moves.moved > MOVED
        if reads.padding_alone:
            seen = "attention reads the padded places and none of the others: its mask is inverted"
            advice = "invert the mask: " + POLARITY
        elif reads.unread:
            queries = reads.keys - reads.unread
            seen = (
                f"the last {reads.unread} of {reads.keys} keys are read by no query: the causal mask starts at the "
                f"first key, and there are only {queries} queries, which read the keys before them alone"
            )
            advice = (
                "align the mask with the last key, and pass it in place of is_causal: "
                f"torch.ones({queries}, {reads.keys}, dtype=torch.bool).tril({reads.unread})"
            )
            numbers = {"unread": reads.unread, "keys": reads.keys}
        elif padding and moves is not None and (reads.masked or moves.told or heeded):
            seen = (
                f"places with content read the padding beside them: without it the outputs of row {moves.row} move by "
                f"{number(moves.moved)} of their size"
            )
            advice = "leave the keys out that are padding, mask[:, None, None, :]; " + POLARITY
            numbers = {"moved": moves.moved}
        else:
            continue
        yield Cause("input-ignored", op.where, seen, advice, evidence=numbers, certain=True, weight=0.96)
        return


def masked_otherwise(evidence: Evidence) -> Iterator[Cause]:
    """The outputs read the places of another row of a mask, or of its other end."""
    name, mask, how = evidence.probed.read
    if how:
        yield Cause(
            "input-ignored",
            mask,
            f"the outputs have a slope along {name} exactly where {mask} {how} says, and not where {mask} does: what "
            "it hides is read, and content is hidden",
            f"hand {mask} on as the batch has it, row by row, and in the order of {name}",
            certain=True,
            weight=0.94,
        )


def padding_told(evidence: Evidence) -> Iterator[Cause]:
    """What the batch says is padding moves the objective, through outputs of the rest or as a target."""
    moves = evidence.probed.padding
    seen = evidence.record.supervision
    if moves is None or moves.objective is None or (seen and seen.padding) or next(masks(evidence), None) is not None:
        return
    read, (before, after) = max(moves.moved, moves.beside) > MOVED, moves.objective
    places = {t.shape[-1] for t in evidence.probed.tensors if t.key == moves.key and t.shape}
    if not read and any(compared.classes in places for _, compared in evidence.ops(Comparison)):
        return  # a place is chosen, and that of padding is one of them: nothing of it is a target
    how = f", without it row {moves.row} moves by {number(moves.moved)}"
    if moves.moved <= MOVED:
        how = f", and outputs of other places by {number(moves.beside)} of their size"
    yield Cause(
        "input-ignored" if read else "target-mismatch",
        moves.key,
        f"{moves.key} says what is padding, and other content there moves the objective from {number(before)} to "
        + number(after)
        + (how if read else ": it counts as a target"),
        f"go by {moves.key} in the model: mask attention and means, pack what recurs, take the last real place"
        if read
        else f"leave out of the loss what {moves.key} leaves out, along the axis of time, shifted as targets are",
        evidence={"objective": before, "exchanged": after},
        certain=True,
        weight=0.94,
    )


def mixed(evidence: Evidence) -> Iterator[Cause]:
    """The output of one sample depends on another."""
    over = next(
        (
            op
            for op, softmax in evidence.ops(Squashed)
            if op.region == LOSS and softmax.over_samples and softmax.ranks == 2
        ),
        None,
    )
    if over is not None and not evidence.passed:
        yield Cause(
            "batch-mixing",
            over.where,
            f"{over.name} runs over axis 0, the {over.shapes[-1][0]} samples, and not over the classes",
            "pass dim=-1",
            evidence={"samples": over.shapes[-1][0]},
            weight=0.95,
        )
    packed = evidence.probed.packed
    if packed is not None and packed.moved > MOVED:
        yield Cause(
            "batch-mixing",
            f"module {packed.where}" if packed.where else packed.told,
            f"{packed.told} sets {packed.documents} documents of a row apart, and other content of the first one moves "
            f"the outputs of those behind it by {number(packed.moved)} of their size",
            "let attention read within a document alone: mask = (ids[:, :, None] == ids[:, None, :]) & causal",
            evidence={"moved": packed.moved},
            certain=True,
            weight=0.93,
        )
        return
    moved = evidence.probed.mixed
    if moved is None or not evidence.probed.mixing_is_certain:
        return
    where = evidence.probed.mixed_where
    by_line = ".py:" in where
    exchanged = f"exchanging sample 0 moves the outputs of the others by {number(moved)} of their size"
    if moved <= ROUNDED:
        exchanged = "with the samples in reverse order their outputs are other ones, not the same in reverse"
    yield Cause(
        "batch-mixing",
        where if by_line else f"module {where}",
        f"the rows are indexed into another order and never back: {exchanged}"
        if by_line
        else f"{exchanged}, first in {where}, in evaluation mode",
        evidence.probed.mixed_by or f"keep axis 0 for the samples in {where}",
        evidence={"moved": moved},
        certain=True,
        weight=0.88,
    )


def places_ignored(evidence: Evidence) -> Iterator[Cause]:
    """A model has a table of positions, and its tokens may come in any order."""
    if (table := evidence.probed.unplaced) and evidence.learned:  # one that has learnt nothing yet says nothing
        yield Cause(
            "input-ignored",
            table,
            f"the tokens of a sequence move each other, and in another order they give the same: {table} tells them "
            "nothing of their places",
            f"add a row of {table} for every place, as {table}[:, :length] does and {table}[:, length] does not",
            certain=True,
            weight=0.94,
        )


def lost(evidence: Evidence) -> Iterator[Cause]:
    """Numbers of which the whole ones alone are read, and graphs whose edges are those of another."""
    cut, graphs = evidence.fact(WholeNumbers), evidence.fact(LeftGraphs)
    if cut is not None:
        yield Cause(
            "input-ignored",
            cut.key,
            f"what stands behind the point of {cut.key} can be left out, and no output and no term of the loss "
            f"changes: of {cut.values} values {cut.left} are left",
            f"keep {cut.key} a float on its way to the model: no .long(), .int() or integer dtype of a collate",
            evidence={"values": cut.values, "left": cut.left},
            certain=True,
            weight=0.95,
        )
    if graphs is not None:
        yield Cause(
            "input-ignored",
            graphs.edges,
            f"all {graphs.count} edges of {graphs.edges} go between the first {graphs.nodes} nodes: "
            f"{graphs.left} of the {graphs.graphs} graphs of {graphs.owners} have none",
            f"add the number of nodes before each graph to its part of {graphs.edges} where the batch is made",
            evidence={"edges": graphs.count, "without": graphs.left},
            certain=True,
            weight=0.95,
        )


FAMILY = Family(
    group="architecture",
    order=180,
    rules=(ignored, unread, masks, masked_otherwise, padding_told, places_ignored, lost, mixed),
    docs="""
### input-ignored

An input, its order or its mask has no influence on the output.

```python
class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x, time):
        return self.net(x)  # fixed: return self.net(x + time)


def loss(model, batch):
    return F.mse_loss(model(batch[0], batch[1]), batch[2])


result = run_overfit(Denoiser, (features, torch.rand(12, 1), values), loss, optimizer=adam, max_steps=400)
```

- **Symptom**: none on one batch, which is memorised from the rest.
- **Evidence**: shown, certain: the input, one view of it or some of its columns are exchanged, and the output stays bit
  for bit the same. Or attention reads exactly what the batch's masks or lengths mark as padding, and nothing else; or
  places with content read padding through a mask, and a row moves once it is asked without its padding; or a causal
  mask starts at the first of more keys than there are queries, so that the last ones are read by nobody. Or the batch
  tells by a mask or by lengths what is padding, and other content there, as well as none, moves objective and outputs.
  Or tokens move each other, and may come in any order although the model has a table of positions. Or the numbers of an
  input are cut to whole ones on the way, or the edges of several graphs in one batch are all those of the first nodes.
- **Fix**: use it in `forward`; if it is meant, leave it out of the call or declare `allow=["input-ignored"]`.

### batch-mixing

Samples influence each other.

```python
class Forecast(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 32)  # fixed: self.lstm = nn.LSTM(4, 32, batch_first=True)
        self.head = nn.Linear(32, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


result = run_overfit(Forecast, (torch.randn(12, 6, 4), values[:, :1]), F.mse_loss, optimizer=adam, max_steps=300)
```

- **Symptom**: none on one batch; with another batch size or order the answers change.
- **Evidence**: shown, certain: one sample is exchanged in evaluation mode, and outputs of others move, or the entries
  of a table of pairs that it has no part in. Or the samples are turned around, and the outputs are not what they
  were, turned around. Or a row has several documents by its `position_ids`, `cu_seqlens` or `document_ids`, and one
  moves the next. A model that takes axis 0 for a sequence, a set or a graph that is alone mixes on purpose: it puts an
  axis of one before it, compares all with all, takes row by row, or is given a sparse matrix.
- **Fix**: keep axis 0 for the samples: look at `batch_first`, `dim=0`, `reshape` and `permute`.
""",
)
