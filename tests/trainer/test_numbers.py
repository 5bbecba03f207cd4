"""Integers that no setting can have are problems: Python refuses to write those of over 4300 digits."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pytest_overfit.errors import ConfigError
from pytest_overfit.settings.ladder import layer_of_keywords, resolve_settings
from pytest_overfit.settings.problems import shown

from .helpers import load, problems, problems_in, write

pytestmark = pytest.mark.usefixtures("composer")
BASE_60 = "1:" + "30:" * 3000 + "30"
WIDE = ("0x" + "f" * 4000, "0b" + "1" * 20_000, "0" + "7" * 6000, BASE_60, "9" * 1000, "-" + "9" * 1000)


@pytest.mark.parametrize("number", WIDE)
@pytest.mark.parametrize("text", ["seed_value: @", "img_size: @", "own: [1, @]"])
def test_in_a_file_and_as_an_override(tmp_path: Path, number: str, text: str) -> None:
    """Known keys and others, in lists: one problem, however the number is spelt."""
    (line,) = problems_in(tmp_path, text.replace("@", number) + "\n")
    assert "found a " in line
    assert "allowed: whole numbers of at most 64 bits" in line
    (line,) = problems(write(tmp_path, "own: 1\n"), [text.replace("@", number).replace(": ", "=", 1)])
    assert "whole number of" in line or "to the base 60" in line


def test_as_keys(tmp_path: Path) -> None:
    """They are written into every message about what is below them."""
    number = "0x" + "f" * 4000
    for text in (f"? {number}\n: 1\n", f"own:\n  ? {number}\n  : {{a: 1}}\n"):
        assert "found a whole number of 16000 bits" in problems_in(tmp_path, text)[0]
    assert "whole number of 16000 bits" in problems(write(tmp_path, "own: 1\n"), [f"own={{{number}: 1}}"])[0]


def test_64_bits_are_read(tmp_path: Path) -> None:
    """The widest that torch takes as a seed, and text of any number of digits."""
    config = load(tmp_path, f"own: {2**64 - 1}\ntext: '{'9' * 5000}'\n", [f"other={2**64 - 1}", "time=1:30:30"])
    assert config.train is not None


def test_out_of_a_resolver(tmp_path: Path) -> None:
    """What was not there when the file was read is bounded too."""
    OmegaConf.register_new_resolver("wide", lambda: 10**5000, replace=True)
    (line,) = problems_in(tmp_path, "seed_value: ${wide:}\n")
    assert "seed_value: found a whole number of 16610 bits" in line


def test_keywords() -> None:
    """A marker or a call that says such a number is told so."""
    with pytest.raises(ConfigError, match="whole number of 16610 bits"):
        resolve_settings([layer_of_keywords("overfit(...)", {"max_steps": 10**5000})], where="a test")


def test_a_message_shows_any_value() -> None:
    """Also one that Python does not write."""
    assert shown(10**5000) == "a whole number of 16610 bits"
    assert shown([10**5000]) == "a list with a number of thousands of digits"
