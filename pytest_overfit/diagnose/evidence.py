"""Everything that a diagnosis may rest on, as plain numbers: rules read it, nothing here needs torch.

``Step`` is what the first steps of a run showed under close watch, ``Probed`` what the parts answered when they were
asked on their own, ``Attempt`` how the run went with exactly one thing changed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pytest_overfit.diagnose.agreement import Agreement, Slope
from pytest_overfit.diagnose.movement import Written
from pytest_overfit.diagnose.operation import F, Op, Shape, with_fact
from pytest_overfit.diagnose.padded import Packed, PaddingRead
from pytest_overfit.diagnose.pairs import Pairs, Turned
from pytest_overfit.diagnose.reached_modules import Unfelt
from pytest_overfit.diagnose.step_trace import C, CallKind, Counts, Event, Group, Leaf, Module, ParameterUpdate, Step
from pytest_overfit.diagnose.trial import Attempt, TrialKind
from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Limit

T = TypeVar("T")


@dataclass(frozen=True)
class Tensor:
    """A tensor of the batch; ``empty`` are its rows without any number, where others have some."""

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
    empty: tuple[int, ...] = ()


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
    squashed: tuple[str, ...] | None = None  # what it is a scaled and shifted one of; None: the graph does not say
    shut: tuple[int, ...] = ()


SAME_FLOOR = 0.05  # relative: two searches that lie closer have found the same one


@dataclass(frozen=True)
class Floor:
    """The loss with its predictions replaced by free numbers and minimised over them.

    ``reached`` is the lowest objective, ``elsewhere`` that of a search from random numbers where the first one stayed
    above the limit; ``unbounded``: it is negative and still falls; ``alone`` are outputs that bring it down without end
    while the others stay as they are; ``low`` and ``high`` are the range of the best predictions by output name, which
    ``stretch`` times as large alone get below the limit; ``unread`` are outputs whose value changes nothing; ``held``
    has the lowest objective with outputs that have no graph as the model makes them, by the names of these.
    """

    reached: float
    start: float
    steps: int
    unbounded: bool
    low: Mapping[str, float] = field(default_factory=dict)
    high: Mapping[str, float] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    reads_weights: bool = False  # parameters, beside the outputs, and half of what is left is theirs
    elsewhere: float | None = None
    stretch: float = 1.0
    alone: tuple[str, ...] = ()
    held: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Term:
    """A loss term at the start: does it depend on the model, on which outputs, and how does the objective follow it?

    ``share`` is the objective's gradient over the term's own, on the elements that this term alone reads (None: there
    are none); ``alignment`` the cosine between the two gradients there; ``weights_only`` says that it reads parameters
    and no output, ``alone`` names parameters that only this term reaches, ``frozen`` those that it would
    reach if they could learn, ``weight`` what the objective multiplies it with (None: it is computed otherwise).
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
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beginnings:
    """Two ``rows`` of tokens that are alike up to a ``place`` and go on differently there.

    ``floor`` is the least cross-entropy that a decoder has over all rows, for all that are so.
    """

    key: str
    rows: tuple[int, int]
    place: int
    floor: float


@dataclass(frozen=True)
class Unfollowed:
    """A summand of what is differentiated that reaches parameters whose gradient of it is thrown away, and no other.

    ``stepped`` are the parameters that an optimizer moves by the gradient of the other summands.
    """

    term: str
    reaches: tuple[str, ...]
    stepped: tuple[str, ...]


@dataclass(frozen=True)
class Unlike:
    """A ``module`` that computes otherwise though its inputs and its parts are the same: its own code does.

    In training mode than in evaluation mode, drawing nothing and keeping no statistics; or by ``chance``, in evaluation
    mode. ``gap`` is how far what it makes lies apart, ``moved`` how far the outputs of the model do for it alone, both
    relative to their size. ``kept``: buffers of its own that stand still in training. ``turns``: chance, or the mode,
    brings into another order what it makes. ``meant``: evaluation decodes what parts hand out, or chooses at no cost.
    """

    module: str
    kind: str
    gap: float
    moved: float
    chance: bool
    kept: tuple[str, ...] = ()
    turns: bool = False
    meant: bool = False


@dataclass(frozen=True)
class Leak:
    """An answer that is in the input: where, how that shows, and the ``module`` in which a later place arrives.

    ``own``: every output has to predict the very value that it reads (``same``), or the one ``before`` it;
    or, without a leak, the one ``after`` the next.
    """

    where: str
    what: str
    module: str = ""
    own: Literal["", "same", "before", "after"] = ""


@dataclass(frozen=True)
class Probed:
    """What the parts answered. None, or empty: not asked, or no answer is certain."""

    tensors: tuple[Tensor, ...] = ()
    repeated: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # input -> target in conflict, samples
    beginnings: Beginnings | None = None
    samples: int | None = None
    ignored: tuple[str, ...] = ()  # arguments of the model that change none of its outputs
    ignored_slices: tuple[str, ...] = ()
    mixed: float | None = None  # how much an output of another sample moves, relative to the changed sample's own
    mixed_where: str = ""
    mixed_by: str = ""  # what to change there
    mixing_is_certain: bool = False
    padding: PaddingRead | None = None
    packed: Packed | None = None
    untaught: tuple[str, int] = ("", 0)  # the mask behind whose ends, and so many last tokens of every row, unlearnt
    counted: tuple[str, int, int] = ("", 0, 0)  # see ``counted_otherwise``
    read: tuple[str, str, str] = ("", "", "")  # see ``read_otherwise``
    unlearnt: tuple[tuple[int, ...], float, float] | None = None  # samples that are left out, what they lose, the rest
    causal: str = ""  # key of an input along whose sequence outputs read earlier places only
    leaks: tuple[Leak, ...] = ()
    unplaced: str = ""  # a table of positions of a model whose tokens may come in any order
    evaluation: float | None = None
    evaluation_settled: float | None = None
    evaluation_by_steps: tuple[float | None, float | None] = (None, None)  # by statistics of steps, and without no_grad
    distance_left: tuple[float, float] | None = None  # of running statistics to settled ones, and what is to be left
    training: float | None = None
    random_training: float = 0.0
    random_evaluation: float = 0.0
    permuted_input: bool = False
    moded: tuple[str, ...] = ()  # modules that compute otherwise in training mode than in evaluation mode
    unlike: tuple[Unlike, ...] = ()
    written: Written | None = None
    outputs: tuple[Output, ...] = ()
    last_layers: tuple[str, ...] = ()  # parameters that outputs are made by, with no other layer behind them
    modules: tuple[Module, ...] = ()
    ops: tuple[Op, ...] = ()
    floor: Floor | None = None
    terms: tuple[Term, ...] = ()
    growth: Mapping[str, int] = field(default_factory=dict)  # term -> times as large with every sample twice
    unfollowed: tuple[Unfollowed, ...] = ()
    unfelt: tuple[Unfelt, ...] = ()
    first_bad: Op | None = None
    bad_gradient: Op | None = None
    huge: Op | None = None
    pairs: Pairs | None = None
    turned: Turned | None = None
    blind: tuple[Slope, ...] = ()  # a part of the model along which outputs slope otherwise than its gradient says
    cut: tuple[str, str] | None = None  # what takes numbers of these out of the graph, and where
    agreement: Agreement | None = None  # of the gradients of the trained model
    agreement_at_start: Agreement | None = None  # the same before the first step, where that was worth asking
    weights_alone: bool = False  # what is differentiated reads weights, and no output of any model

    def knowing(self, **answers: Any) -> Probed:
        """The same with more answers; ``replace`` sets all fields anew, and a run adds to them dozens of times."""
        assert answers.keys() <= vars(self).keys()
        known = copy.copy(self)
        vars(known).update(answers)
        return known


def fact_name(kind: type) -> str:
    """What facts of a type are kept under."""
    return f"{kind.__module__}.{kind.__qualname__}"


@dataclass(frozen=True)
class Evidence:
    """All that is known of one run."""

    record: RunRecord
    findings: tuple[Finding, ...]
    limits: Mapping[str, Limit]
    steps: tuple[Step, ...] = ()
    groups: tuple[Group, ...] = ()
    updates: tuple[ParameterUpdate, ...] = ()
    counts: Counts = field(default_factory=Counts)
    own_loads: Mapping[str, int] = field(default_factory=dict)  # by line: how often a module loads its own tensors
    alike: tuple[str, ...] = ()  # lists of modules that are copies of one, weights and all, at the start and at the end
    leaves: tuple[Leaf, ...] = ()  # of the graph, that are nobody's
    probed: Probed = field(default_factory=Probed)
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)  # of further questions, by fact_name
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

    def curve(self, criterion: str) -> Sequence[float]:
        """The curve of the term that a criterion is about."""
        return self.record.curves.get(self.record.terms.get(criterion) or "", ())

    @property
    def learned(self) -> bool:
        """Every limit was met, whatever else may be wrong."""
        limited = {finding.name: finding for finding in self.findings if finding.name in self.limits}
        return bool(limited) and all(finding.passed for finding in limited.values())

    @property
    def noted(self) -> tuple[Op, ...]:
        """The operations of the first step; of the trained model where there was no first step."""
        return self.steps[0].ops if self.steps and self.steps[0].ops else self.probed.ops

    def ops(self, kind: type[F]) -> Iterator[tuple[Op, F]]:
        """Those of which such facts were measured, with them."""
        return with_fact(self.noted, kind)

    def events(self, *kinds: CallKind) -> Iterator[tuple[int, Event]]:
        """The calls of such kinds, with the number of their step."""
        return ((step.number, event) for step in self.steps for event in step.events if event.kind in kinds)

    def calls(self, kind: type[C]) -> Iterator[tuple[int, Event, C]]:
        """The calls of which such facts were measured, with the number of their step."""
        for step in self.steps:
            for event in step.events:
                if isinstance(event.fact, kind):
                    yield step.number, event, event.fact

    def fact(self, kind: type[T]) -> T | None:
        """What a question beside ours has found; None where it was not asked."""
        found = self.facts.get(fact_name(kind))
        return found if isinstance(found, kind) else None

    def attempt(self, kind: TrialKind) -> Attempt | None:
        """The first trial of a kind; None where none was made."""
        return next((attempt for attempt in self.attempts if attempt.trial.kind == kind), None)

    def proof(self, *kinds: TrialKind) -> Attempt | None:
        """The first trial of one of these kinds that learns; None where none does."""
        return next((each for each in self.attempts if each.passed and each.trial.kind in kinds), None)

    def refutes(self, kind: TrialKind) -> bool:
        """Whether such trials were made, and none comes clearly nearer to the limit than the run did."""
        made = [each for each in self.attempts if each.trial.kind == kind]
        return bool(made) and not any(self.helps(each, left=0.9) for each in made)

    def helps(self, attempt: Attempt, *, left: float = 0.5) -> bool:
        """Whether a trial learns, or has so much left of what the run left of its way to the limit."""
        ran, limit = [x for x in self.objective if math.isfinite(x)], self.limit_of_objective()
        tried = [x for x in attempt.curve if math.isfinite(x)]
        if attempt.passed or limit is None or not ran or not tried:
            return attempt.passed
        return min(tried) - limit <= left * (min(ran) - limit)

    @property
    def agreement(self) -> Agreement | None:
        """Slopes and gradients before the first step, where they are largest; else those of the trained model."""
        return self.probed.agreement_at_start or self.probed.agreement

    def limit_of_objective(self) -> float | None:
        limit = self.limits.get("objective")
        if limit is None or limit.below is None or not self.objective:
            return None
        return limit.below * self.objective[0] if limit.relative else limit.below
