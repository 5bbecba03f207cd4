"""JSON from anybody: one kind of error, whatever is in it, and bounded before it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.report.record.folder import read_document
from pytest_overfit.report.record.json_tree import MOST_CONTAINERS, MOST_VALUES, NotATree, parse_tree
from pytest_overfit.report.record.saved import Saved, read_saved, write_saved

HOSTILE = {
    "deep lists": (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
    "deep mappings": (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "nested too deeply"),
    "digits": (b'{"overfit": {"version": ' + b"9" * 5000 + b"}}", "digits"),
    "negative digits": (b"[-" + b"9" * 5000 + b"]", "digits"),
    "hundreds of digits": (
        b'{"overfit": {"version": ' + b"9" * 400 + b"}}",
        "a whole number of 400 digits, beyond 64 bits",
    ),
    "65 bits": (str(2**64).encode(), "20 digits, beyond 64 bits"),
    "64 bits and a sign": (str(-(2**63) - 1).encode(), "19 digits, beyond 64 bits"),
    "no float": (b'{"overfit": {"version": 1e400}}', "the number 1e400, which is beyond every float"),
    "no float below": (b"[-1" + b"0" * 400 + b".0]", "beyond every float"),
    "NaN": (b'{"overfit": {"version": NaN}}', "the token NaN"),
    "infinity": (b"[-Infinity]", "the token -Infinity"),
    "a key twice": (b'{"overfit": {"version": 1, "version": 1}}', "the key 'version' twice in one mapping"),
    "no UTF-8": (b'{"a": "\xff"}', "no UTF-8: byte 7 is 0xff"),
    "a surrogate in UTF-8": (b'["\xed\xa0\x80"]', "no UTF-8"),
    "UTF-16": ('{"overfit": 1}'.encode("utf-16"), "no UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "no JSON: "),
    "nothing": (b"", "no JSON: "),
    "cut": (b'{"overfit": {', "no JSON: "),
    "many values": (b"[" + b"1," * MOST_VALUES + b"1,1]", "too many to be read"),
    "many lists": (b"[" * (MOST_CONTAINERS + 1), "too many to be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name: str, tmp_path: Path) -> None:
    """Records and saved runs refuse them as what they are, with the place and the next step."""
    data, said = HOSTILE[name]
    with pytest.raises(NotATree, match=said):
        parse_tree(data)
    path = tmp_path / "a.json"
    path.write_bytes(data)
    for reader in (read_document, read_saved):
        with pytest.raises(OverfitError, match=said) as error:
            reader(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n  allowed: " in str(error.value)


def test_a_lone_surrogate_in_an_escape(tmp_path: Path) -> None:
    r"""``\ud800`` is JSON, and no text: a record that holds it is refused."""
    path = tmp_path / "a.json"
    path.write_text('{"overfit": {"version": 1, "id": "\\ud800"}}')
    with pytest.raises(OverfitError, match="lone surrogate"):
        read_document(path)
    path.write_text('{"name": "\\ud800", "saved": "", "runs": []}')
    with pytest.raises(OverfitError, match="lone surrogate"):
        read_saved(path)
    path.write_text('{"name": "\\ud83d\\ude00", "saved": "", "runs": []}')
    assert read_saved(path).name == "\U0001f600"


@pytest.mark.parametrize("version", [None, "1", 2, 1.5, [1], {"a": 1}, True])
def test_odd_versions(version: object, tmp_path: Path) -> None:
    """Whatever stands for the version is told, cut where it is long."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"overfit": {"version": version}}))
    with pytest.raises(OverfitError):
        read_document(path)


def test_sound_texts_are_read(tmp_path: Path) -> None:
    """Nesting as deep as records are, numbers, and every character come through."""
    assert parse_tree(json.dumps({"a": [[[{"b": "\0é\U0001f600"}]], -1.5e300, None]}).encode()) == {
        "a": [[[{"b": "\0é\U0001f600"}]], -1.5e300, None]
    }
    saved = Saved("main", "2026-01-01", ())
    assert read_saved(write_saved(tmp_path / "main.json", saved)) == saved


def test_the_widest_numbers_are_read() -> None:
    """A memory in bytes, a seed of 64 bits, the largest float."""
    assert parse_tree(f"[{2**64 - 1}, {-(2**63)}, 1.7976931348623157e308]".encode()) == [
        2**64 - 1, -(2**63), 1.7976931348623157e308,
    ]  # fmt: skip
