"""The one place where a question may break: what it keeps, what goes through, what is whose fault."""

from __future__ import annotations

import pytest

from pytest_overfit.errors.asking import (
    Mistake,
    NotAsked,
    Questions,
    Refused,
    Unanswerable,
    not_asked_lines,
    spoken,
    users_code,
)


def broken() -> None:
    raise IndexError("tuple index out of range")


def refusing() -> None:
    with users_code():
        raise ValueError("length 3 is not 4\nand more")


def test_an_answer_is_handed_through() -> None:
    """Nothing is kept of a question that was answered."""
    questions = Questions(raising=False)
    assert questions.ask("the answer", lambda: 42, otherwise=None) == 42
    assert questions.not_asked == ()


def test_what_breaks_is_ours() -> None:
    """The kind, the text, and a wish for a report."""
    questions = Questions(raising=False)
    assert questions.ask("the width", broken, otherwise="nothing") == "nothing"
    (kept,) = questions.not_asked
    assert kept.ours
    assert kept.text() == (
        "not asked: the width: IndexError: tuple index out of range; this is a mistake of pytest-overfit's: "
        "please report it"
    )


def test_what_the_users_code_raises_is_a_refusal() -> None:
    """In one line, without a wish for a report."""
    questions = Questions(raising=True)
    with questions.asking("the order"):
        refusing()
    assert questions.not_asked == (
        NotAsked("the order", "the model, the loss or the step refuses it: ValueError: length 3 is not 4"),
    )


def test_what_cannot_be_asked_says_why() -> None:
    """The reason as it was given."""
    questions = Questions(raising=True)
    with questions.asking("the floor"):
        raise Unanswerable("out of time")
    assert questions.not_asked == (NotAsked("the floor", "out of time"),)


def test_the_same_is_kept_once() -> None:
    """A question that is asked of every argument does not fill the report."""
    questions = Questions(raising=False)
    for _ in range(3):
        questions.leave_out("the floor", "out of time")
    assert len(questions.not_asked) == 1


def test_the_switch_raises_what_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tests of this package run."""
    monkeypatch.setenv("PYTEST_OVERFIT_RAISE", "1")
    with pytest.raises(Mistake, match="the width: IndexError: tuple index out of range"):
        Questions().ask("the width", broken, otherwise=None)
    monkeypatch.setenv("PYTEST_OVERFIT_RAISE", "0")
    assert Questions().ask("the width", broken, otherwise=None) is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, pytest.fail.Exception])
def test_the_end_of_a_session_goes_through(kind: type[BaseException]) -> None:
    """Ctrl-C and the time-outs of pytest are no mistakes of a question."""

    def ended() -> None:
        raise kind

    with pytest.raises(kind):
        Questions(raising=False).ask("anything", ended, otherwise=None)


def test_refusals_are_not_wrapped_twice() -> None:
    """The error of the user's stays the one that is shown."""
    with pytest.raises(Refused) as caught, users_code():
        refusing()
    assert str(caught.value) == "ValueError: length 3 is not 4"


def test_an_error_whose_text_raises_has_its_kind() -> None:
    """An exception of the user's may be broken too."""

    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert spoken(OddError()) == "OddError"
    assert len(spoken(ValueError("x" * 1000))) == 160


def test_mistakes_of_ours_come_first() -> None:
    """They ask for something to be done."""
    found = not_asked_lines([NotAsked("a", "out of time"), NotAsked("b", "KeyError", ours=True)])
    assert found == [
        "not asked: b: KeyError; this is a mistake of pytest-overfit's: please report it",
        "not asked: a: out of time",
    ]


def test_many_are_told_by_name() -> None:
    """A report keeps its size."""
    found = not_asked_lines([NotAsked(name, "out of time") for name in "abcdefg"])
    assert len(found) == 6
    assert found[-1] == "not asked either: f, g"
