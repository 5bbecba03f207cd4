"""Both languages say everything, with the same numbers in it."""

from __future__ import annotations

import re
import string

import pytest

from pytest_overfit.diagnose.cause import IDS
from pytest_overfit.errors import OverfitError
from pytest_overfit.text import LANGUAGES
from pytest_overfit.text.cause_titles import meaning, seen_forms, title
from pytest_overfit.text.translations import translated, words
from pytest_overfit.trainer.trainer_section import FROZEN_FRESH


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


NOTES = (
    "no GPU used (torch 2.13.0+cpu is a CPU build)",
    "no GPU used (torch.cuda.is_available() is False, device_count() is 0)",
    "logging.scalar_keys_to_log.train: the loss gives no loss_objective; the loss calls it objective",
    "accum_steps is 2 and has no effect: the batch has 1 sample",
    "limit_train_batches is 800 and has no effect: an epoch repeats the one batch 10 times (overfit.steps_per_epoch)",
    "data.train.common_config: inside_random, get_nearby may draw at random; set them to false",
    "12 keys that only a trainer reads: limit_val_batches, checkpoint.save_dir and 10 more",
    "not asked: 3 of 9 trials: out of time: diagnose_seconds",
    "not asked: the floor of the loss: a search over free predictions had no time to end",
    "data.train.dataset.dataset_configs has 2 entries: only the first is used",
    FROZEN_FRESH,
    "data.train.dataset.ROOT has no effect: overfit.pair.source is render",
    "4 of 165 tensors of the model not in it: head.weight, head.bias and 2 more",
)


@pytest.mark.parametrize("note", NOTES)
def test_a_note_is_in_chinese_with_its_names_and_numbers(note: str) -> None:
    """Whatever is a key, a file or a number stays; no English sentence does."""
    said = translated(note, "zh")
    assert re.search("[\u4e00-\u9fff]", said)
    assert sorted(re.findall(r"\d+", said)) == sorted(re.findall(r"\d+", note))
    assert set(re.findall(r"\w+[._]\w+", note)) <= set(re.findall(r"[a-zA-Z0-9_.]+", said)) | set(
        re.findall(r"\w+[._]\w+", said)
    )
    assert not re.search(r"has no effect|not asked|is read|reads|entries", said)


def test_a_note_of_another_form_is_quoted() -> None:
    """As a class of the user's may write one."""
    assert translated("the moon is full", "zh") == "the moon is full"


def test_every_form_has_the_same_fields_in_chinese() -> None:
    """No number is lost, and none is asked for that is not there; no form is there twice."""
    assert [
        first
        for first, now in seen_forms()
        if not {*fields_of(now)} <= {*fields_of(first)} <= {*fields_of(now), "whose"}
    ] == []
    assert len({first for first, _ in seen_forms()}) == len(seen_forms())


def test_every_cause_says_what_it_means() -> None:
    """And what to do, in one sentence; of a rule of the user's own nothing is known."""
    assert [cause for cause in IDS if not re.fullmatch(r"[^\n]*[\u4e00-\u9fff][^\n]*。", meaning(cause, "zh"))] == []
    assert meaning("shop.rare-class", "zh") == meaning("lr-low", "en") == ""


def test_every_cause_has_a_title() -> None:
    """In Chinese; of a rule of the user's own its id."""
    assert all(re.fullmatch(rf"{cause} .*[\u4e00-\u9fff].*", title(cause, "zh")) for cause in IDS)
    assert title("shop.rare-class", "zh") == "shop.rare-class"
    assert {title(cause, "en") for cause in IDS} == set(IDS)


@pytest.mark.parametrize(
    ("line", "chinese"),
    [
        ("E         change: test_model.py:8: a, allowed b", "E         修改：test_model.py:8: a, allowed b"),
        ("E       AssertionError: a 1, allowed < 2: b", "E       AssertionError: a 1，要求 < 2：b"),
        ("why: lr-low (proven): a: b", "原因：lr-low 学习率过小（经对照试验证实）：a: b"),
        ("x 1 (start 2, best 1), allowed < 0.1 for 5 steps in a row", "x 1（初始 2，最好 1），要求 < 0.1（连续 5 步）"),
        (
            "9 of 9 steps in 1.0 s (3 ms a step), CUT SHORT by max_seconds; cpu",
            "9 / 9 步，1.0 秒（每步 3 毫秒），达到 max_seconds 时限，被提前截断；cpu",
        ),
        ("    return model(x)", "    return model(x)"),
        ("a; b", "a; b"),
    ],
)
def test_a_line_of_the_terminal(line: str, chinese: str) -> None:
    """What is fixed in it, with its indentation; what a user wrote stays, and English is as it was."""
    assert translated(line, "zh") == chinese
    assert translated(line, "en") == line
