"""What is trained: a model, its data, its loss, its optimizer, and how all of them are used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.loads import loads_heard
from pytest_overfit.run.observer import Pictures
from pytest_overfit.run.record import FramePrediction, Generated, Load
from pytest_overfit.settings.settings import AmpConfig, ClipGroup, OverfitSettings

if TYPE_CHECKING:
    from pytest_overfit.run.supervision_probe import Probe

Schedule = Callable[[float], float]  # the value of a hyper-parameter at a progress from 0 to 1
VAL_EVERY = 100  # steps between two looks at a validation batch


class NotGiven:
    """Data that nobody gave: what is trained may bring its own."""


NOT_GIVEN = NotGiven()


def _nothing(*args: Any) -> tuple[Any, ...]:
    return ()


def _no_pictures(predictions: Any, batch: Any) -> Pictures | None:
    return None


def _no_numbers(predictions: Any) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class Application:
    """What the predictions of one kind of model mean.

    Args:
        probe: measures what the loss answers to, in place of the probe of any batch.
        compare: (predictions, batch) -> one record per frame, prediction against ground truth.
        numbers: measured of predictions now and then, by name.
        pictures: (predictions, batch) -> what observers that draw are given.
    """

    probe: Probe | None = None
    compare: Callable[[Any, Any], tuple[FramePrediction, ...]] = _nothing
    numbers: Callable[[Any], Mapping[str, float]] = _no_numbers
    pictures: Callable[[Any, Any], Pictures | None] = _no_pictures


@dataclass(frozen=True)
class TwinParts:
    """What some twins need of the user's (docs/twins.md).

    Args:
        save, load: write and read a checkpoint: called with as many of (path, model, optimizer) as they take.
        accumulate: one step over several micro-batches: as many of (model, micro-batches, optimizer) as it takes.
        port_of: the model that this one was ported from, and its names: a mapping from globs over names here to
            names there, or a function from a name here to the one there.
    """

    save: Callable[..., Any] | None = None
    load: Callable[..., Any] | None = None
    accumulate: Callable[..., Any] | None = None
    port_of: tuple[Any, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("save", "load", "accumulate"):
            if not callable(value := getattr(self, name)) and value is not None:
                raise OverfitError(f"a {type(value).__name__}", where=name, allowed="something that can be called")
        if (self.save is None) != (self.load is None):
            given, lacking = ("save", "load") if self.load is None else ("load", "save")
            raise OverfitError(f"{given} without {lacking}", where=given, allowed="both of them, or neither")


NO_PARTS = TwinParts()


def twin_parts(keywords: dict[str, Any]) -> TwinParts:
    """What some twins need, taken out of the keywords of a call."""
    return TwinParts(**{each.name: keywords.pop(each.name, None) for each in fields(TwinParts)})


@dataclass(frozen=True)
class Subject:
    """What is trained, and how.

    Example:
        >>> Subject(torch.nn.Linear(4, 1), (torch.randn(8, 4), torch.randn(8, 1)), torch.nn.functional.mse_loss).name
        ''

    Args:
        model: a module, a mapping or list of modules, or a factory without arguments that builds one.
        data: a batch, a loader or other iterable of batches, a callable that returns one, or a ``Sample``.
        loss: ``loss(model, batch)``, a criterion for (input, target) batches, or None; beside ``predict`` it is
            ``loss(predictions, batch)``.
        optimizer: an optimizer, several, or a factory.
        step: the user's own train step.
        name: of the run, in its record and its messages.
        val_data: what is evaluated on, as ``data``; ``val_every``: steps between two evaluations.
        schedules: hyper-parameter of the parameter groups (``lr``, ``weight_decay``) -> its value over the run.
        predict: (model, batch) -> predictions, where the loss takes predictions.
        application: what the predictions mean; ``shows_pictures``: all observers get pictures of them.
        held: what else may hold state of the user's.
        clip: modules whose gradients are clipped together, where the settings name none.
        keys: how messages call a setting that comes from elsewhere, by its name.
        notes: what there is to say of the subject; ``remarks``: what there is to say once it has been trained.
        amp: mixed precision where the settings say nothing.
        listened: which modules of the model are asked, told the batch: those that a train step calls itself; None:
            the model.
        discarded: keys of the batch that the step throws away in so many words: it need not answer to them.
        generated: asked once the model is trained, with the batch and whether generation is a criterion.
        loads: checkpoints that did not fill the whole model when it was built.
        twins: what some twins need of the user's.
    """

    model: Any
    data: Any = NOT_GIVEN
    loss: Any = None
    optimizer: Any = None
    step: Callable[..., Any] | None = None
    name: str = ""
    val_data: Any = None
    val_every: int = VAL_EVERY
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    predict: Callable[[Any, Any], Any] | None = None
    application: Application = Application()
    shows_pictures: bool = False
    held: tuple[Any, ...] = ()
    clip: tuple[ClipGroup, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    remarks: Callable[[], Iterable[str]] = _nothing
    amp: AmpConfig | None = None
    listened: Callable[[Any], Any] | None = None
    discarded: tuple[str, ...] = ()
    generated: Callable[[Any, bool], Generated | None] | None = None
    loads: tuple[Load, ...] = ()
    twins: TwinParts = NO_PARTS

    @property
    def callables(self) -> tuple[Any, ...]:
        """What may hold state of the user's besides the model."""
        parts = self.twins.save, self.twins.load, self.twins.accumulate
        data = self.data, self.val_data
        return (*self.held, self.step, self.loss, self.optimizer, *data, *self.schedules.values(), *parts)

    def key(self, setting: str) -> str:
        """How messages call a setting."""
        return self.keys.get(setting, setting)

    def built(self) -> Subject:
        """The same with the modules that a factory returns, and what it loaded into them."""
        if not is_factory(self.model):
            return self
        with loads_heard() as loads:
            model = self.model()
        return replace(self, model=model, loads=tuple(loads))


def is_factory(model: Any) -> bool:
    """Whether a model can be built afresh: a callable that is no module."""
    return callable(model) and not isinstance(model, nn.Module)


def schedules_of(given: Any) -> dict[str, Schedule]:
    """Hyper-parameter -> its schedule; a bare callable is the learning rate's.

    Example:
        >>> list(schedules_of(lambda progress: 0.1 * (1 - progress)))
        ['lr']

    Raises:
        OverfitError: it is neither a callable nor a mapping of such.
    """
    schedules = dict(given) if isinstance(given, Mapping) else {} if given is None else {"lr": given}
    if wrong := [value for value in schedules.values() if not callable(value) or isinstance(value, type)]:
        raise OverfitError(
            f"a {type(wrong[0]).__name__} where a schedule is wanted",
            where="schedule",
            allowed="a function of the progress from 0 to 1 that gives the learning rate, or a mapping of such "
            "functions by hyper-parameter: lr, weight_decay",
            hint="a scheduler of torch.optim.lr_scheduler belongs into a step of your own",
        )
    return schedules


Adapter = Callable[[Subject, OverfitSettings], contextlib.AbstractContextManager[Subject]]


@contextlib.contextmanager
def as_given(subject: Subject, settings: OverfitSettings) -> Iterator[Subject]:
    """A subject with its model built, and nothing else changed."""
    yield subject.built()


def with_data(subject: Subject) -> Subject:
    """The subject itself.

    Raises:
        OverfitError: nobody gave data.
    """
    if subject.data is NOT_GIVEN:
        raise OverfitError(
            f"no data was given, and {type(subject.model).__name__} brings none",
            where="data",
            allowed="a batch (any nest of tensors), a DataLoader or other iterable of batches, or a callable",
        )
    return subject
