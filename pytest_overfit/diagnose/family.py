"""A family of causes: what the docs say of each, the rules that find them, and the questions that these rest on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence

if TYPE_CHECKING:
    from torch import Tensor

    from pytest_overfit.run.context import RunContext

Rule = Callable[[Evidence], Iterable[Cause]]
LAST = 1000
HEADING = re.compile(r"^### (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Question:
    """Something that is asked of every run beside what we ask: its answer is a record of plain numbers.

    Args:
        name: said where it could not be asked.
        ask: called with the run and the outputs of the trained model by name; None: it has no answer here.
            A rule finds the answer by its type: ``evidence.fact(ViewsSeen)``.
    """

    name: str
    ask: Callable[[RunContext, Mapping[str, Tensor]], Any]


@dataclass(frozen=True)
class Family:
    """Causes that are told apart by one file.

    Example:
        >>> Family("data", docs="### shop.rare-class\\n\\nA class is rare.").ids
        ('shop.rare-class',)

    Args:
        group: the heading of docs/causes.md below which they stand.
        docs: Markdown, a section per cause: its id as the heading (stable: people filter and suppress by it), one
            sentence, one example that ends in ``result = run_overfit(...)``, then symptom, evidence and fix. A comment
            ``# fixed: ...`` says what has to be in its line: the example is the test of the rule.
        rules: from evidence to causes; pure, without torch. One may name a cause of another family, too.
        questions: what the rules need to know that nobody has asked.
        lead: Markdown below the heading of the group.
        order: of the rules: among causes that are equally likely the first one is named first.
    """

    group: str
    docs: str = ""
    rules: tuple[Rule, ...] = ()
    questions: tuple[Question, ...] = ()
    lead: str = ""
    order: int = LAST

    @property
    def ids(self) -> tuple[str, ...]:
        """The causes that have a section."""
        return tuple(HEADING.findall(self.docs))
