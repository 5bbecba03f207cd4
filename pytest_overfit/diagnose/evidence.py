"""Everything that a diagnosis may rest on, as plain numbers: rules read it, nothing here needs torch.

``Seen`` is what the first steps of a run showed under close watch, ``Probed`` what the parts answered when they were
asked on their own, ``Attempt`` how the run went with exactly one thing changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_overfit.diagnose.views import ViewsPredicted, ViewsSeen
from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Limit

Shape = tuple[int, ...]
LOSS = "the loss"  # the region of what happens outside of every module


@dataclass(frozen=True)
class Op:
    """One operation worth a note: by its torch name, in a module (dotted name) or in the loss.

    ``line`` is the user's line that called it; ``shapes`` those of its tensor arguments, then of its result; ``final``
    the operation that made its first argument; ``numbers`` whatever was measured.
    """

    name: str
    region: str
    line: str
    shapes: tuple[Shape, ...] = ()
    final: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        place = self.region if self.region == LOSS else f"module {self.region}"
        return f"{place}, {self.line}" if self.line else place


@dataclass(frozen=True)
class Module:
    """The output of one module call: ``spread`` is its deviation over the samples relative to its size.

    ``spread`` is None where there is no axis of samples, ``fed`` the largest number that it was given. ``inside`` is
    False for a module that is no submodule of the model that was handed over.
    """

    name: str
    kind: str
    inside: bool
    grad_enabled: bool
    training: bool
    parameters: int
    shape: Shape
    size: float
    low: float
    high: float
    spread: float | None
    input_spread: float | None
    finite: bool
    fed: float = 0.0


@dataclass(frozen=True)
class Event:
    """A call that moves a train step on: zero_grad, forward, backward, clip, step, load, init, ..."""

    kind: str
    line: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One training step under close watch.

    ``roots`` are the values that were differentiated, ``reported`` is the objective that came back. ``reached`` are
    the parameters in the graph of what was differentiated, ``foreign`` leaves of it that are neither of the model, of
    the batch, nor in an optimizer. ``connected`` says whether the reported objective lies in that graph.
    """

    number: int
    reported: float
    events: tuple[Event, ...] = ()
    ops: tuple[Op, ...] = ()
    modules: tuple[Module, ...] = ()
    roots: tuple[float, ...] = ()
    reached: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    foreign_in_optimizer: int = 0
    graph: tuple[str, ...] = ()
    connected: bool | None = None
    outside: tuple[str, ...] = ()  # kinds of modules with parameters that ran in the model and are none of its own


@dataclass(frozen=True)
class Group:
    """One parameter group: its settings as it first stepped, and its learning rate in the sampled steps."""

    optimizer: int
    kind: str
    index: int
    tensors: int
    names: tuple[str, ...]
    rates: tuple[float, ...]
    initial_rate: float
    settings: Mapping[str, float]
    scheduled: bool = False  # by a scheduler of torch's, which keeps the rate that was set

    @property
    def where(self) -> str:
        which = f"optimizer {self.optimizer} " if self.optimizer else ""
        return f"{which}({self.kind}), group {self.index}"


@dataclass(frozen=True)
class Moves:
    """A parameter over the sampled steps.

    ``ratios`` are norms of one update over the norm of the weight; ``overwritten`` counts the sampled steps before
    which it had changed by another hand than the optimizer's, of ``sampled``; ``back`` those in which it was its
    initial value again; ``rows_alike`` whether all its rows are equal; ``size`` its root mean square, ``gradient`` that
    of its first gradient (None: none came), ``still`` whether it ended as it began,
    bit for bit, ``grown`` its size at the end over that at the start.
    """

    name: str
    dtype: str
    shape: Shape
    size: float
    gradient: float | None
    ratios: tuple[float, ...] = ()
    sampled: int = 0
    overwritten: int = 0
    back: int = 0
    rows_alike: bool = False
    rows_alike_after: bool = False
    still: bool = False
    grown: float = 1.0


@dataclass(frozen=True)
class Tensor:
    """A tensor of the batch."""

    key: str
    dtype: str
    shape: Shape
    finite: bool
    bad_at: Shape | None
    low: float
    high: float
    mean: float
    deviation: float
    column_deviation: tuple[float, float]
    column_mean: float
    distinct_rows: int | None
    is_input: bool
    is_target: bool


@dataclass(frozen=True)
class Output:
    """A prediction at the end of the run, against what the loss would like best where that is known.

    ``shut`` are the columns (places along the last axis) that are 0 everywhere though the loss wants them larger.
    """

    name: str
    shape: Shape
    low: float
    high: float
    spread: float | None
    final: str
    gradient: float | None = None
    constant_within: bool = False
    alike_along: int | None = None  # an axis along which all entries are the same
    shut: tuple[int, ...] = ()


@dataclass(frozen=True)
class Floor:
    """The loss with its predictions replaced by free numbers and minimised over them.

    ``reached`` is the lowest objective, ``elsewhere`` that of a search from random numbers where the first one stayed
    above the limit, ``below`` whether it would have gone on falling; ``low`` and ``high`` are the
    range of the best predictions by output name; ``unread`` are outputs whose value changes nothing.
    """

    reached: float
    start: float
    steps: int
    unbounded: bool
    low: Mapping[str, float] = field(default_factory=dict)
    high: Mapping[str, float] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    reads_weights: bool = False  # the loss reads parameters of the model beside its outputs
    terms: Mapping[str, float] = field(default_factory=dict)
    elsewhere: float | None = None


@dataclass(frozen=True)
class Term:
    """A loss term at the start: does it depend on the model, on which outputs, and how does the objective follow it?

    ``share`` is the objective's gradient over the term's own, on the elements that this term alone reads (None: there
    are none); ``alignment`` the cosine between the two gradients there; ``weights_only`` says that it reads parameters
    and no output, ``alone`` names parameters that only this term reaches, ``weight`` what the objective multiplies it
    with (None: it is computed otherwise).
    """

    name: str
    depends: bool
    in_objective: bool
    share: float | None = None
    alignment: float | None = None
    weights_only: bool = False
    weight: float | None = None
    outputs: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probed:
    """What the parts answered. None, or empty: not asked, or no answer is certain."""

    tensors: tuple[Tensor, ...] = ()
    repeated: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # input -> target in conflict, samples
    samples: int | None = None
    arguments: tuple[tuple[str, float, float], ...] = ()  # of the model: name, lowest, highest
    ignored: tuple[str, ...] = ()  # arguments of the model that change none of its outputs
    ignored_slices: tuple[str, ...] = ()
    mixed: float | None = None  # how much an output of another sample moves, relative to the changed sample's own
    mixed_where: str = ""
    mixing_is_certain: bool = False
    causal: str = ""  # key of an input along whose sequence outputs read earlier places only
    leaks: tuple[tuple[str, str], ...] = ()  # (where, what)
    evaluation: float | None = None
    evaluation_settled: float | None = None
    training: float | None = None
    random_training: float = 0.0
    random_evaluation: float = 0.0
    permuted_input: bool = False
    mode_modules: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    modules: tuple[Module, ...] = ()
    ops: tuple[Op, ...] = ()
    floor: Floor | None = None
    terms: tuple[Term, ...] = ()
    first_bad: Op | None = None
    bad_gradient: Op | None = None
    huge: Op | None = None
    unread_samples: int = 0
    paired: bool | None = None  # rows of the outputs answer to inputs and targets of the same samples
    mispaired: str = ""  # the output of which they do not
    weights_alone: bool = False  # what is differentiated reads weights, and no output of any model


@dataclass(frozen=True)
class Attempt:
    """The run again from the same start with exactly one thing changed.

    ``passed_at`` is the step at which all limits had held (None: not within ``steps``), ``value`` what the changed
    thing was set to, and ``was`` what it had been.
    """

    change: str
    curve: tuple[float, ...]
    passed_at: int | None
    stop: str
    was: float | None = None
    value: float | None = None
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.passed_at is not None

    @property
    def steps(self) -> int:
        return len(self.curve)


@dataclass(frozen=True)
class Evidence:
    """All that is known of one run."""

    record: RunRecord
    findings: tuple[Finding, ...]
    limits: Mapping[str, Limit]
    steps: tuple[Step, ...] = ()
    groups: tuple[Group, ...] = ()
    moves: tuple[Moves, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)  # of the whole run: steps, states lost, ...
    alike: tuple[str, ...] = ()  # lists of modules that are copies of one, weights and all
    probed: Probed = field(default_factory=Probed)
    views: ViewsSeen | None = None
    predicted: ViewsPredicted | None = None
    attempts: tuple[Attempt, ...] = ()
    own_step: bool = False
    unused: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    stochastic: bool = False
    interrupted: bool = False  # Ctrl-C while trials were made

    @property
    def passed(self) -> bool:
        return not any(finding.missed for finding in self.findings)

    @property
    def missed(self) -> tuple[str, ...]:
        return tuple(finding.name for finding in self.findings if finding.missed)

    @property
    def objective(self) -> tuple[float, ...]:
        return tuple(self.record.curves.get("objective", ()))

    @property
    def learned(self) -> bool:
        """Every limit was met, whatever else may be wrong."""
        limited = {finding.name: finding for finding in self.findings if finding.name in self.limits}
        return bool(limited) and all(finding.passed for finding in limited.values())

    def attempt(self, change: str) -> Attempt | None:
        return next((attempt for attempt in self.attempts if attempt.change == change), None)

    def ops(self, *names: str, region: str | None = None) -> Iterator[Op]:
        """The noted operations of the first step, by name."""
        for op in self.steps[0].ops if self.steps else ():
            if op.name in names and (region is None or op.region == region):
                yield op

    def events(self, *kinds: str) -> Iterator[tuple[int, Event]]:
        for step in self.steps:
            for event in step.events:
                if event.kind in kinds:
                    yield step.number, event

    def limit_of_objective(self) -> float | None:
        limit = self.limits.get("objective")
        if limit is None or limit.below is None or not self.objective:
            return None
        return limit.below * self.objective[0] if limit.relative else limit.below

    def curve(self, criterion: str) -> Sequence[float]:
        name = resolve_term(criterion, self.record.curves)
        return self.record.curves.get(name or "", ())
