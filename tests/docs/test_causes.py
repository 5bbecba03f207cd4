"""Every id of the catalogue has a section in docs/causes.md whose example is told its cause."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.catalogue import ids_of
from pytest_overfit.diagnose.inspector import LEAST_SECONDS
from pytest_overfit.diagnose.questions.loss_floor import STEPS
from pytest_overfit.diagnose.questions.modes import SETTLE
from pytest_overfit.diagnose.questions.parameter_updates import CLOSE
from pytest_overfit.judge.finding import is_line
from pytest_overfit.settings.cause_ids import GROUPS, IDS
from pytest_overfit.text.translations import translated
from tests.docs.write_causes import EVERY, PAGE, listed, page
from tests.docs.write_causes import IDS as IDS_FILE
from tests.support.chinese import ENGLISH, assert_chinese
from tests.support.examples import BLOCK, fixed, run_example, told

PARTS = re.compile(r"^- \*\*(\w+)\*\*: \S", re.MULTILINE)
EVIDENCE = re.compile(
    r"^- \*\*Evidence\*\*: (?P<strength>proven|shown|observed)(?P<certain>, certain)?: ", re.MULTILINE
)


@dataclass(frozen=True)
class Section:
    """What the page says of one id."""

    id: str
    group: str
    text: str

    @property
    def examples(self) -> list[str]:
        return [match["code"] for match in BLOCK.finditer(self.text) if not match["prelude"]]

    @property
    def lead(self) -> str:
        """The text before the example."""
        return self.text.partition("```")[0].strip()


def read_sections(text: str) -> list[Section]:
    """The sections of the groups, in the order of the page."""
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        group, _, rest = part.partition("\n")
        for section in re.split(r"^### ", rest, flags=re.MULTILINE)[1:]:
            name, _, body = section.partition("\n")
            found.append(Section(name.strip(), group.strip(), body))
    return found


TEXT = PAGE.read_text(encoding="utf-8")
PRELUDE = "\n\n".join(match["code"] for match in BLOCK.finditer(TEXT) if match["prelude"])
SECTIONS = {section.id: section for section in read_sections(TEXT)}


def run(code: str, name: str, run_overfit: Callable[..., OverfitResult]) -> OverfitResult:
    """The ``result`` of an example of the page."""
    return run_example(code, name, run_overfit, prelude=PRELUDE)


def test_page_and_ids_are_what_the_causes_say() -> None:
    """Run `python -m tests.docs.write_causes` when a cause changes."""
    assert page(TEXT) == TEXT
    assert listed(ids_of(EVERY)) == IDS_FILE.read_text(encoding="utf-8")


def test_every_id_has_one_section_in_the_order_of_the_catalogue() -> None:
    """Under its group."""
    sections = read_sections(TEXT)
    assert [section.id for section in sections] == list(IDS)
    assert [section.group for section in sections] == [group for group, ids in GROUPS.items() for _ in ids]


@pytest.mark.parametrize("cause", IDS)
def test_a_section_has_all_parts(cause: str) -> None:
    """One sentence, one example that ends in a run, then symptom, evidence and fix."""
    section = SECTIONS[cause]
    lead = section.lead.removesuffix("<!-- prelude -->")
    assert lead.count(". ") == 0
    assert lead.endswith(".")
    (code,) = section.examples
    assert PARTS.findall(section.text) == ["Symptom", "Evidence", "Fix"]
    assert re.search(r"^result = run_overfit\(", code, re.MULTILINE)
    assert fixed(code) != code


@pytest.mark.parametrize("cause", IDS)
def test_an_example_is_told_its_cause_first(cause: str) -> None:
    """It fails, and the first cause is what its section is about. One run is asked everything."""
    result = run(SECTIONS[cause].examples[0], cause, run_overfit)
    assert not result.passed
    assert [found.id for found in result.causes][:1] == [cause], told(result)
    assert_as_strong_as_the_page_says(cause, result)
    assert_told_in_chinese(result)
    assert_no_two_lines_contradict(result)
    if cause.startswith("nonfinite"):  # nothing is cut from a graph where there is no number to compare
        assert "no-gradient" not in [found.id for found in result.causes]


def assert_as_strong_as_the_page_says(cause: str, result: OverfitResult) -> None:
    """Strength and certainty of the example."""
    match = EVIDENCE.search(SECTIONS[cause].text)
    assert match is not None
    found = next(found for found in result.causes if found.id == cause)
    assert (match["strength"], bool(match["certain"])) == (found.strength, found.certain), told(result)


def assert_told_in_chinese(result: OverfitResult) -> None:
    """Of causes, criteria and notes no English sentence is left, and no number is lost; errors of libraries aside."""
    for found in result.causes:
        assert_chinese(found)
    texts = [each for f in result.findings for each in (f.observed, f.allowed, f.where, f.hint) if each]
    for text in (*texts, *(note for note in result.notes if "Error: " not in note)):
        assert is_line(text) or not ENGLISH.search(translated(text, "zh")), translated(text, "zh")


def assert_no_two_lines_contradict(result: OverfitResult) -> None:
    """No rate both up and down, no more steps beside what keeps it from learning, no hint beside what a cause says."""
    rates = {
        found.evidence["works"] > found.evidence["lr"]
        for found in result.causes
        if {"works", "lr"} <= set(found.evidence)
    }
    assert len(rates) <= 1, told(result)
    patient = "few-steps" in [found.id for found in result.causes]
    assert not patient or all(found.strength == "observed" for found in result.causes), told(result)
    hints = {finding.name: finding.hint for finding in result.findings if finding.missed and finding.hint}
    assert set(hints) <= {"defects", *(each.name for each in result.findings if each.hint_stands)}, hints


@pytest.mark.parametrize("cause", IDS)
def test_a_mended_example_passes(cause: str) -> None:
    """With its comments taken for code nothing is named."""
    result = run(fixed(SECTIONS[cause].examples[0]), cause, run_overfit)
    assert result.causes == (), told(result)
    assert result.passed, told(result)


def test_what_is_allowed_is_not_held_against_a_run() -> None:
    """As the page says of ``input-ignored``."""
    allowing = partial(run_overfit, allow=["input-ignored"])
    result = run(SECTIONS["input-ignored"].examples[0], "input-ignored", allowing)
    assert result.passed, told(result)
    assert "input-ignored" in result.finding("defects").observed


def test_a_rule_of_the_users_own_is_asked() -> None:
    """The example of the last section: its cause is the only one, and certain."""
    code = TEXT.partition("<!-- rule -->\n```python\n")[2].partition("```")[0]
    result = run(code, "rule", run_overfit)
    assert [(found.id, found.certain) for found in result.causes] == [("shop.rare-class", True)], told(result)
    assert not result.passed
    allowing = partial(run_overfit, allow=["shop.rare-class"])
    assert run(code, "rule", allowing).passed


def test_without_a_diagnosis_nothing_is_named() -> None:
    """``diagnose=False`` switches ``defects`` off with it."""
    blind = partial(run_overfit, diagnose=False)
    result = run(SECTIONS["input-ignored"].examples[0], "input-ignored", blind)
    assert result.passed
    assert result.causes == ()
    assert "defects" not in [finding.name for finding in result.findings]


def test_the_page_has_the_numbers_of_the_code() -> None:
    """How often user code is called, and for how long."""
    text = " ".join(TEXT.split())
    words = {2.0: "two", 3: "three"}
    assert f"(of a train step of your own, the first {words[CLOSE]})" in text
    assert f"up to {SETTLE} forward passes" in text
    assert f"the loss up to {2 * STEPS} times" in text  # from two starts
    assert f"at least {words[LEAST_SECONDS]} seconds" in text


def test_a_run_that_passes_costs_few_calls_of_the_loss() -> None:
    """Three in training mode and one in evaluation mode, beside those of the run; those for each of two layers."""
    count = (
        "calls = []\n"
        "def loss(model, batch):\n"
        "    calls.append(model.training)\n"
        "    return F.cross_entropy(model(batch[0]), batch[1])\n"
        "result = run_overfit(net, (features, classes), loss, optimizer=adam, DIAGNOSE)\n"
        "assert result.passed\n"
    )
    calls = []
    for diagnose in ("diagnose=True", "diagnose=False"):
        space: dict[str, Any] = {}
        with torch.random.fork_rng():
            exec(PRELUDE + count.replace("DIAGNOSE", diagnose), space)
        calls.append(space["calls"])
    trained, bare = (modes.count(True) for modes in calls)
    assert 3 < trained - bare <= 4 + 4 * 2
    assert [modes.count(False) for modes in calls] == [1, 0]


@pytest.mark.parametrize(
    ("line", "mended"),
    [
        ("    x = 1  # fixed: x = 2", "    x = 2"),
        ("    # fixed: optimizer.step()", "    optimizer.step()"),
        ("x.y(1.0)[0]  # fixed: remove this line", ""),
        ("x = 1  # a comment", "x = 1  # a comment"),
    ],
)
def test_a_comment_says_what_has_to_be_in_its_line(line: str, mended: str) -> None:
    """In place of the code before it, or of nothing."""
    assert fixed(line) == mended
