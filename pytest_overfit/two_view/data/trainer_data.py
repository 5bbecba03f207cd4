"""Batches of a trainer's own data classes: an object with a ``seed`` that gives a loader per epoch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.batch import freeze_batch
from pytest_overfit.run.isolation import isolated
from pytest_overfit.run.sample import Batch, Sample, differences_of
from pytest_overfit.trainer.build import alone
from pytest_overfit.trainer.config import OverfitConfig
from pytest_overfit.trainer.imports import imported
from pytest_overfit.trainer.instantiate import find_target, instantiate
from pytest_overfit.two_view.data.normalize import prepare_batch
from pytest_overfit.two_view.diagnose.views import SourceSeen
from pytest_overfit.two_view.pair.exr_depth import exr_heard

EPOCH_SEEDS = 100  # between the seeds of two epochs, as in the trainers of this family
PER_EPOCH = 2  # batches that are looked at


class TrainerData:
    """What ``data.train`` (or ``data.val``) of a trainer's config hands out, without its launcher.

    Example:
        >>> data = TrainerData(load_config("training/config/single_pair_test.yaml"))       # doctest: +SKIP
        >>> next(iter(data))["images"].shape                                               # doctest: +SKIP
        torch.Size([1, 2, 3, 476, 518])

    The ``_target_`` is built with its nested sections as they are, gets the config's seed as ``seed``, and is asked for
    ``get_loader(epoch)``; an iterable of batches is taken as it is. Iterating gives the first batches of epoch 0, as
    the loader gives them: on the CPU, not prepared, each time the same. Random state comes back as it was.
    """

    def __init__(self, config: OverfitConfig, split: str = "train") -> None:
        assert config.trainer is not None
        self.config, self.where = config, f"data.{split}"
        self.section = config.trainer.split(split)
        self._source: Any = None
        self._drawn: dict[int, list[Batch]] = {}
        self._compared: list[SourceSeen | None] = []

    def __iter__(self) -> Iterator[Batch]:
        yield from self.draw(0)

    @property
    def source(self) -> Any:
        """The trainer's own object, built once."""
        if self._source is None:
            with self._at_home(self.config.seed):
                self._build()
        return self._source

    def draw(self, epoch: int) -> list[Batch]:
        """Copies of the first batches of an epoch, at most ``PER_EPOCH``.

        Raises:
            OverfitError: there is none, or it is no mapping.
        """
        if epoch not in self._drawn:
            with self._at_home(self.config.seed + EPOCH_SEEDS * epoch):
                self._build()
                batches = itertools.islice(iter(self._loader(epoch)), PER_EPOCH)
                self._drawn[epoch] = [self._checked(batch) for batch in batches]
        if not self._drawn[epoch]:
            found = "the loader gives no batch"
            hint = "does drop_last, a limit or an empty split leave nothing?"
            raise OverfitError(found, where=f"{self.where}, epoch {epoch}", allowed="at least one batch", hint=hint)
        return [freeze_batch(batch, torch.device("cpu")) for batch in self._drawn[epoch]]

    def compared(self) -> SourceSeen | None:
        """The first batch beside its files; None where they are of another layout. Looked at once."""
        from pytest_overfit.two_view.diagnose.source_causes import look_at_source

        if not self._compared:
            self._compared.append(look_at_source(self.section, self.draw(0)[0]))
        return self._compared[0]

    def prepared(self, batch: Batch) -> Batch:
        """The batch as the model gets it: by ``overfit.prepare_batch``, or doubled and normalised by us.

        Raises:
            OverfitError: what the function returns is no batch.
        """
        assert self.config.trainer is not None
        dotted = self.config.overfit.prepare_batch
        if dotted is None:
            return prepare_batch(batch, repeat=self.config.trainer.repeat_batch)
        with self._at_home(self.config.seed):
            result = find_target(dotted, where="overfit.prepare_batch")(batch)
        result = batch if result is None else result  # it has changed the batch in place
        if not isinstance(result, Mapping):
            found = f"{dotted} returned a {type(result).__name__}"
            where = "overfit.prepare_batch"
            raise OverfitError(found, where=where, allowed="the batch, or None where it changes it in place")
        return result

    @contextlib.contextmanager
    def _at_home(self, seed: int) -> Iterator[None]:
        with imported(*self.config.import_roots), isolated(seed=seed), alone(), exr_heard():
            yield

    def _build(self) -> None:
        if self._source is None:
            self._source = instantiate(self.section, where=self.where, recursive=False)
            with contextlib.suppress(AttributeError):  # a plain iterable need not take one
                self._source.seed = self.config.seed

    def _loader(self, epoch: int) -> Any:
        if callable(getattr(self._source, "get_loader", None)):
            return self._source.get_loader(epoch)
        if hasattr(self._source, "__iter__"):
            return self._source
        allowed = "an object with get_loader(epoch), or an iterable of batches"
        raise OverfitError(f"a {type(self._source).__name__} without get_loader", where=self.where, allowed=allowed)

    def _checked(self, batch: Any) -> Batch:
        if isinstance(batch, Mapping):
            return freeze_batch(batch, torch.device("cpu"))
        raise OverfitError(
            f"a batch that is a {type(batch).__name__}", where=self.where, allowed="a mapping with images and targets"
        )


def draw_sample(data: TrainerData) -> Sample:
    """One frozen draw, prepared, and how the next ones differ from it: in the same epoch, and in the next."""
    first, *later = data.draw(0)
    changed: tuple[str, ...] = ()
    randomness: tuple[str, ...] = ()
    others = (*later, *data.draw(1)[:1])
    for other in others:
        if changed := differences_of(first, other):
            randomness = _explained(first, other, data)
            break
    notes = tuple(_accumulation(first, data.config))
    return Sample(data.prepared(first), None, changed, randomness, notes, draws=1 + len(others), look=data.compared)


def _explained(first: Batch, other: Batch, data: TrainerData) -> tuple[str, ...]:
    """Which settings of this family make such a difference; nothing where the config's own keys say it already."""
    if data.config.randomness:
        return ()
    common = f"{data.where}.common_config"
    shapes = [tuple(batch["images"].shape) for batch in (first, other) if isinstance(batch.get("images"), Tensor)]
    if len(shapes) == 2 and shapes[0][1:] != shapes[1][1:]:
        said = f"their images are {shapes[0]} and {shapes[1]}: set {common}.fix_img_num to 2 and fix_aspect_ratio"
    elif first.get("seq_name") != other.get("seq_name"):
        said = (
            f"they are different samples, {first.get('seq_name')} and {other.get('seq_name')}: leave one pair in the "
            f"split, or set {common}.inside_random and {data.where}.shuffle to false"
        )
    elif not differences_of(first.get("depths"), other.get("depths")):
        said = (
            f"colours alone change: set {common}.training to false, or augs.color_jitter.p to 0 (null may stand for a "
            "jitter of default strength)"
        )
    else:
        said = f"images and depth change: set {common}.augs.scales and rescale_aug off, or training to false"
    return (f"two draws of {data.where} differ; {said}",)


def _accumulation(batch: Batch, config: OverfitConfig) -> Iterator[str]:
    assert config.trainer is not None
    tensors = [batch["images"]] if "images" in batch else list(batch.values())
    sizes: Sequence[int] = [len(value) for value in tensors if isinstance(value, Tensor) and value.dim()]
    samples, parts = (*sizes, 1)[0] * (1 + config.trainer.repeat_batch), config.trainer.accum_steps
    if parts > samples:
        yield f"accum_steps is {parts} and has no effect: the batch has {samples} sample{'s'[: samples > 1]}"
