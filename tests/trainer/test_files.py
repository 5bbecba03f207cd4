"""The file itself: missing, unreadable, malformed, oddly named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.trainer.loading import load_config, load_configs

from .helpers import problems, problems_in, write


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is named, with the file next to it that may have been meant."""
    write(tmp_path, "img_size: 224", "single_pair.yaml")
    assert problems(tmp_path / "single_pairs.yaml") == [
        "single_pairs.yaml: found no such file (did you mean single_pair.yaml?), allowed: a YAML file"
    ]


def test_directory(tmp_path: Path) -> None:
    """A directory is not a config."""
    (tmp_path / "d.yaml").mkdir()
    assert problems(tmp_path / "d.yaml") == ["d.yaml: found a directory, allowed: a YAML file of at most 1000000 bytes"]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "--- \n...\n"])
def test_empty_file(tmp_path: Path, text: str) -> None:
    """A file without settings is an error, not a config of defaults."""
    assert problems_in(tmp_path, text) == [
        "a.yaml: found an empty file, allowed: a mapping of settings, such as `img_size: 224`"
    ]


@pytest.mark.parametrize(
    ("text", "kind"), [("- a\n- b\n", "list"), ("img_size\n", "single value"), ("3", "single value")]
)
def test_no_mapping(tmp_path: Path, text: str, kind: str) -> None:
    """A list or a lone word at the top level is not a config."""
    assert problems_in(tmp_path, text) == [
        f"a.yaml: found a {kind} at the top level, allowed: a mapping of settings, such as `img_size: 224`"
    ]


def test_syntax_error_has_line_and_column(tmp_path: Path) -> None:
    """A YAML syntax error shows where it is."""
    assert problems_in(tmp_path, "img_size: 224\nmodel: [1, 2\nloss: 3\n") == [
        "a.yaml:3:5: found a YAML syntax error: expected ',' or ']', but got ':'"
    ]


def test_tabs(tmp_path: Path) -> None:
    """An indent by tabs is named as such."""
    assert problems_in(tmp_path, "model:\n\tname: x\n") == [
        "a.yaml:2:1: found a YAML syntax error: found character '\\t' that cannot start any token (indent with spaces)"
    ]


def test_duplicate_key(tmp_path: Path) -> None:
    """A key given twice is an error: one of the two would be lost."""
    assert problems_in(tmp_path, "img_size: 224\nimg_size: 518\n") == [
        "a.yaml:2:1: found duplicate key img_size, allowed: each key once"
    ]


def test_undecodable_bytes(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are shown with their position."""
    path = tmp_path / "a.yaml"
    path.write_bytes(b"exp_name: caf\xe9\n")
    assert problems(path) == ["a.yaml: found byte 0xe9 at offset 13, allowed: UTF-8 text"]


def test_byte_order_mark(tmp_path: Path) -> None:
    """A UTF-8 byte order mark, as Windows editors write it, does no harm."""
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfimg_size: 224\r\nexp_name: x\r\n")
    assert load_config(path).exp_name == "x"


def test_alias_bomb(tmp_path: Path) -> None:
    """Aliases that expand to billions of values are refused without expanding them."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (line,) = problems_in(tmp_path, "\n".join(lines))
    assert line.startswith("a.yaml: found aliases that expand to 1")
    assert line.endswith("values, allowed: at most 10000 values")


def test_alias_of_itself(tmp_path: Path) -> None:
    """A value that contains itself is refused."""
    assert problems_in(tmp_path, "a: &a\n  b: *a\n") == [
        "a.yaml: a.b: found an alias of a value inside itself, allowed: a plain tree of settings"
    ]


def test_deep_nesting(tmp_path: Path) -> None:
    """Thousands of brackets are a problem, not a crash."""
    (line,) = problems_in(tmp_path, "a: " + "[" * 20_000)
    assert line == "a.yaml: found values nested too deeply, allowed: a plain tree of settings"


def test_huge_file(tmp_path: Path) -> None:
    """A data file given by mistake is refused by its size."""
    (line,) = problems_in(tmp_path, "a: " + "x" * 1_000_001)
    assert line == "a.yaml: found 1000004 bytes, allowed: a YAML file of at most 1000000 bytes"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe(tmp_path: Path) -> None:
    """A named pipe is refused instead of being waited for."""
    os.mkfifo(tmp_path / "p.yaml")
    assert problems(tmp_path / "p.yaml") == [
        "p.yaml: found a named pipe (FIFO), allowed: a YAML file of at most 1000000 bytes"
    ]


@pytest.mark.usefixtures("composer")
@pytest.mark.parametrize(
    "name",
    [
        "a b.yaml",
        "v1.2.yaml",
        "UPPER.YAML",
        "a.yml",
        "größe ☃.yaml",
        "lr=1e-4.yaml",
        "a@b.yaml",
        "no_suffix",
        "[x].yaml",
    ],
)
@pytest.mark.parametrize("defaults", ["", "defaults: [base, _self_]\n"])
def test_unusual_names(tmp_path: Path, name: str, defaults: str) -> None:
    """Any file name works, with and without composition."""
    write(tmp_path, "img_size: 112\nmax_epochs: 5\n", "base.yaml")
    config = load_config(write(tmp_path, f"{defaults}img_size: 224\n", name))
    assert (config.img_size, config.max_epochs) == (224, 5 if defaults else 100)


@pytest.mark.usefixtures("composer")
def test_unusual_folder(tmp_path: Path) -> None:
    """A folder with spaces, equal signs and accents works, also where nothing can be written."""
    folder = tmp_path / "é a=b [1]" / "c,d"
    path = write(folder, "defaults: [base, _self_]\nmax_epochs: 3\n", "main.yaml")
    write(folder, "img_size: 112\n", "base.yaml")
    folder.chmod(0o555)
    try:
        assert load_config(path).img_size == 112
    finally:
        folder.chmod(0o755)


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path relative to the working directory is taken, and kept as an absolute one."""
    write(tmp_path, "img_size: 224", "sub/a.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_config("sub/a.yaml").path == tmp_path / "sub" / "a.yaml"


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    """One error reports the problems of every config, each line with its file."""
    first = write(tmp_path, "img_size: -1\nmax_epoch: 3\n", "first.yaml")
    second = write(tmp_path, "overfit: {devise: cpu}\n", "second.yaml")
    good = write(tmp_path, "img_size: 224\n", "good.yaml")
    with pytest.raises(ConfigError) as caught:
        load_configs([(first, []), (good, []), (second, []), (tmp_path / "x" / "none.yaml", [])])
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        "first.yaml: max_epoch: found an unknown key (did you mean max_epochs?)\n"
        "    change: first.yaml:2: max_epochs: 3\n"
        "  first.yaml: img_size: found -1, allowed: a whole number from 1 to 8192\n"
        "  second.yaml: overfit.devise: found an unknown key (did you mean device?), allowed: device |"
        " diagnose | distributed and 20 more: docs/settings.md\n"
        "    change: second.yaml:1: overfit: {device: cpu}\n"
        "  x/none.yaml: found no such file, allowed: a YAML file (pytest-overfit init writes one)\n"
        "4 problems in the config"
    )
