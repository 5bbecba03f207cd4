"""Files that `benchmarks/mutate.py` has made and that once ended in a foreign error, or in words on the screen."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from pytest_overfit.errors import OverfitError, PairError
from pytest_overfit.report.record.codec import to_json
from pytest_overfit.report.record.folder import read_document
from pytest_overfit.two_view.pair.index import locate_pair, read_index
from pytest_overfit.two_view.pair.readers import read_depth
from tests.report.record.runs import document

HERE = Path(__file__).parent


@pytest.mark.parametrize("path", sorted(HERE.glob("*.exr")), ids=lambda path: path.stem)
def test_damaged_depth_is_one_error_and_silent(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """OpenEXR printed its errors and warnings: to the standard error, and through Python."""
    with pytest.raises(PairError, match="cannot be decoded \\(its compressed pixels are damaged; ") as error:
        read_depth(path)
    assert "EXR_ERR" in error.value.found
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", sorted(HERE.glob("*.npz")), ids=lambda path: path.stem)
def test_words_that_are_no_characters(path: Path, tmp_path: Path) -> None:
    """numpy raised a SystemError when such an element became a string: here it is a name that no file has."""
    index = read_index(path)
    names = [*index.images, *index.images_scene_name]
    assert any(name is not None and "\N{REPLACEMENT CHARACTER}" in name for name in names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(len(index)):
            with pytest.raises(PairError):
                locate_pair(tmp_path, path, None, number, index=index)


def test_a_record_with_a_deep_value(tmp_path: Path) -> None:
    """A sound record with 100,000 brackets in the place of a number: a RecursionError."""
    tree = json.loads(to_json(document(None)))
    tree["overfit"]["call"] = "DEEP"
    path = tmp_path / "record.json"
    path.write_text(json.dumps(tree).replace('"DEEP"', "[" * 100_000), encoding="utf-8")
    with pytest.raises(OverfitError, match="nested too deeply"):
        read_document(path)
