"""The files that a batch of a trainer's own data class was made of, where they lie in the layout that we know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family, Question
from pytest_overfit.errors import PairError
from pytest_overfit.errors.asking import NotAsked, Questions
from pytest_overfit.run.sample import Sample
from pytest_overfit.two_view.diagnose.source_causes import RULES
from pytest_overfit.two_view.diagnose.views import SourceSeen

if TYPE_CHECKING:
    from pytest_overfit.two_view.pair.index import PairIndex

ROWS = 2**18  # of an index that are looked through at a time
ASKED = "whether the batch is what its files say"


def look_at_source(section: Mapping[str, Any], batch: Mapping[str, Any]) -> SourceSeen | None:
    """A batch beside its files; None where the section names none that we can read.

    Args:
        section: ``data.train`` of a trainer. Of the first mapping in it that has ``ROOT`` and ``split_file``, those,
            ``segmentation_root``, ``remove_sky`` and ``max_depth`` are read.
        batch: as the loader hands it out, before anything is normalised.
    """
    from pytest_overfit.two_view.diagnose.source_geometry import compare_with_files
    from pytest_overfit.two_view.pair.index import locate_pair, read_index
    from pytest_overfit.two_view.pair.readers import read_view

    named = next((one for one in _mappings(section) if "ROOT" in one and "split_file" in one), None)
    if named is None:
        return None
    root, masks = Path(str(named["ROOT"])), named.get("segmentation_root")
    try:
        index = read_index(root / str(named["split_file"]))
        number = _pair_number(batch, index)
        pair = locate_pair(root, root / str(named["split_file"]), masks, number, index=index, follow_links=True)
        raw = [read_view(view) for view in pair.views]
    except PairError:  # another layout, or files that ::pair and the loader speak of
        return None
    limits = {"max_depth": float(named["max_depth"])} if "max_depth" in named else {}
    return compare_with_files(
        batch, pair.seq_name, raw, remove_sky=bool(named.get("remove_sky", True)) and masks is not None, **limits
    )


def causes_of_source(look: Callable[[], SourceSeen | None]) -> tuple[tuple[Cause, ...], tuple[NotAsked, ...]]:
    """What is certainly wrong with a batch, by its files; and what of that could not be asked."""
    questions = Questions()
    seen = questions.ask(ASKED, look, otherwise=None)
    return () if seen is None else tuple(_causes(seen)), tuple(questions.not_asked)


def source_family(sample: Sample) -> tuple[Family, ...]:
    """The question that the data of a sample can answer beside its batch, as a family of causes."""
    look = sample.look
    if look is None:
        return ()
    return (Family("two-view", rules=(_of_source,), questions=(Question(ASKED, lambda context, outputs: look()),)),)


def _of_source(evidence: Evidence) -> Iterator[Cause]:
    seen = evidence.fact(SourceSeen)
    if seen is not None:
        yield from _causes(seen)


def _causes(seen: SourceSeen) -> Iterator[Cause]:
    for rule in RULES:
        yield from rule(seen)


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _mappings(each)


def _pair_number(batch: Mapping[str, Any], index: PairIndex) -> int:
    """Which pair of the index it is: by its two ids, else by the number in its name, else the first."""
    ids = batch.get("ids")
    if getattr(ids, "ndim", 0) == 2:
        wanted = [int(one) for one in ids[0][:2]]  # type: ignore[index]
        for start in range(0, len(index), ROWS):
            hits = (index.pairs[start : start + ROWS][:, 1:3] == wanted).all(1).nonzero()[0]
            if len(hits):
                return start + int(hits[0])
    names = batch.get("seq_name")
    name = names[0] if isinstance(names, (list, tuple)) and names else names
    found = re.search(r"_(\d+)$", name) if isinstance(name, str) else None
    return int(found[1]) if found else 0
