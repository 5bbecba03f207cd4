"""Both languages say everything, with the same numbers in it."""

from __future__ import annotations

import re
import string

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.report import LANGUAGES
from pytest_overfit.report.markdown.translations import words


def fields_of(template: str) -> list[str]:
    """The names that a text has places for."""
    return sorted(name for _, name, _, _ in string.Formatter().parse(template) if name)


def test_both_languages_are_complete() -> None:
    """Equal keys, no empty text, and the same fields in each."""
    english, chinese = words("en"), words("zh")
    assert english.keys() == chinese.keys()
    assert {key for key in english if not english[key]} | {key for key in chinese if not chinese[key]} == {"joint"}
    assert [key for key in english if fields_of(english[key]) != fields_of(chinese[key])] == []


def test_chinese_is_chinese() -> None:
    """Each text but those that are numbers alone has Chinese signs in it, and no English sentence."""
    other = {key for key, value in words("zh").items() if not re.search("[\u4e00-\u9fff]", value)}
    assert other <= {"share", "steps_of", "threads", "cause", "problem", "in_module", "joint", "next_cause"}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("title", "实验记录：{title}"),
        ("train_loss", "训练损失"),
        ("val_loss", "验证损失"),
        ("camera_loss", "相机损失"),
        ("depth_loss", "深度损失"),
        ("frozen", "冻结模块"),
        ("learning_rate", "学习率"),
        ("conclusion", "结论"),
    ],
)
def test_the_words_of_the_field(key: str, text: str) -> None:
    """As a team writes them."""
    assert words("zh")[key] == text


def test_an_unknown_language_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(OverfitError, match="no texts in 'de'") as told:
        words("de")
    assert "en | zh" in str(told.value)
    assert LANGUAGES == ("en", "zh")
