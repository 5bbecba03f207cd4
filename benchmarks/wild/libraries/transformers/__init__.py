"""transformers: encoders, decoders, sequence to sequence, vision, sound and time series, with their own losses."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.transformers import decoders, encoders, images_and_texts, seq2seq, series, sound, vision


def programs() -> Iterator[Program]:
    """All of them, by what they read and write."""
    for kind in (encoders, decoders, seq2seq, vision, images_and_texts, sound, series):
        yield from kind.programs()
