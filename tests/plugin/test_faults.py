"""One fault is one failure: what cannot be judged because of it is skipped, and the last lines say what to do."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.plugin.faults import Faults
from pytest_overfit.two_view.inspections import nearest_path
from pytest_overfit.two_view.pair.create import create_pair
from pytest_overfit.two_view.pair.synthetic import render_source
from tests.plugin.conftest import TinyConfig
from tests.support.sessions import CRITERIA, ITEMS, RUN, failed_items, outcomes, reports_of

SPLIT = "common_config: {fix_img_num: 2, fix_aspect_ratio: 0.92}"
PLACES = "ROOT: pair, split_file: pair/train.npz, segmentation_root: pair/seg"
IN_PLACE = ("{source: render, width: 160, height: 120}", "{source: dataset}")
SHORT = "--overfit-max-steps=20"
EXR = "pair/0000/ground.jpeg.exr"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound pair."""
    folder = tmp_path_factory.mktemp("rendered")
    source = render_source(folder / "source", width=160, height=120)
    return create_pair(source.source_root, source.source_seg_root, source.source_npz, folder / "pair").root


@pytest.fixture
def in_place(pytester: pytest.Pytester, tiny: TinyConfig, rendered: Path) -> Callable[..., Path]:
    """Writes the tiny config over a copy of the pair, with some text exchanged."""

    def write(*replace: tuple[str, str]) -> Path:
        shutil.copytree(rendered, pytester.path / "pair")
        places = (SPLIT, f"{SPLIT}\n    dataset: {{dataset_configs: [{{{PLACES}}}]}}")
        return tiny(replace=(places, IN_PLACE, *replace))

    return write


# What is exchanged in the config, the item that fails, and what the last five lines say.
WRONG: dict[str, tuple[tuple[tuple[str, str], ...], str, tuple[str, ...]]] = {
    "ROOT": (
        (("ROOT: pair,", "ROOT: pare,"),),
        "config",
        (
            "no such folder: *pare",
            "data.train.dataset.dataset_configs.0.ROOT",
            "next: --overfit-set *ROOT=*pair",
        ),
    ),
    "split_file": (
        (("pair/train.npz", "pair/trian.npz"),),
        "config",
        (
            "no such file: *trian.npz",
            "data.train.dataset.dataset_configs.0.split_file",
            "next: --overfit-set *=*train.npz *",
        ),
    ),
    "segmentation_root": (
        (("pair/seg", "pair/sge"),),
        "config",
        (
            "no such folder: *pair/sge",
            "dataset_configs.0.segmentation_root",
            "next: --overfit-set *=*pair/seg *",
        ),
    ),
    "model": (
        (("tiny.Memoriser", "tiny.Memorizer"),),
        "config",
        ("'tests.support.tiny.Memorizer' cannot be used", "where: model._target_", "next: did you mean Memoriser[?]"),
    ),
    "module": (
        (("tests.support.tiny", "tests.suport.tiny"),),
        "config",
        ("tests has no 'suport'", "where: model._target_", "next: did you mean support[?]"),
    ),
    "loss": (
        (("MultitaskLoss", "MultiTaskLoss"),),
        "config",
        (
            "reference.MultiTaskLoss' cannot",
            "where: loss._target_",
            "did you mean MultitaskLoss[?]",
        ),
    ),
    "missing EXR": (
        (),
        "pair",
        ("pair: no such file", f"where: *{EXR}", "next: pytest-overfit pair create *"),
    ),
    "broken EXR": ((), "pair", (f"where: *{EXR}", "next: pytest-overfit pair check *")),
    "workers": (
        (("overfit:\n", "num_workers: 1\noverfit:\n"),),
        "pair",
        (f"where: *{EXR}", "next: pytest-overfit pair check *"),
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_name_fails_one_item(pytester: pytest.Pytester, in_place: Callable[..., Path], how: str) -> None:
    """In the session, in JUnit; in the table the rest is one line; the last lines have the value and the next step."""
    replace, teller, says = WRONG[how]
    in_place(*replace)
    if how == "missing EXR":
        (pytester.path / EXR).unlink()
    elif teller == "pair":
        (pytester.path / EXR).write_bytes((pytester.path / EXR).read_bytes()[:200])
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", SHORT, "--junitxml=out.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    behind = ["pair", "loader"] if "_target_" not in " ".join(says) else []
    skipped = {name for name in (*behind, RUN, *CRITERIA) if name != teller}
    expected = {name: "skipped" if name in skipped else "passed" for name in ITEMS} | {teller: "failed"}
    assert outcomes(result) == expected
    reports = reports_of(result)
    assert all(f"not judged: ::{teller} failed (" in reports[name].longreprtext for name in skipped)
    (suite,) = ElementTree.parse(pytester.path / "out.xml").iter("testsuite")
    counts = {name: int(suite.get(name, "")) for name in ("failures", "errors", "skipped")}
    assert counts == {"failures": 1, "errors": 0, "skipped": len(skipped)}
    assert sum(line.startswith("skipped ") for line in result.outlines) == 1
    last = [line for line in result.outlines if line][-5:]
    pytest.LineMatcher(["\n".join(last)]).fnmatch_lines([f"*tiny.yaml::{teller}: *"])
    for words in says:
        pytest.LineMatcher(last).fnmatch_lines([f"*{words}*"])


def test_annotations_have_one_error(
    pytester: pytest.Pytester, in_place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JUnit."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    in_place()
    (pytester.path / EXR).unlink()
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", SHORT)
    assert sum(line.startswith("::error ") for line in result.outlines) == 1


def test_two_faults_are_two_failures(pytester: pytest.Pytester, in_place: Callable[..., Path]) -> None:
    """Each told by its own item."""
    in_place(("tiny.Memoriser", "tiny.Memorizer"))
    (pytester.path / EXR).unlink()
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", SHORT)
    assert outcomes(result) == {**dict.fromkeys(ITEMS, "skipped"), "config": "failed", "pair": "failed"}


def test_a_strict_session_has_one_failure_too(pytester: pytest.Pytester, in_place: Callable[..., Path]) -> None:
    """It is red already."""
    in_place(("ROOT: pair,", "ROOT: pare,"))
    result = pytester.runpytest_inprocess(
        "--overfit-config=tiny.yaml", SHORT, "--overfit-strict", "--overfit-device=cpu"
    )
    assert outcomes(result) == {**dict.fromkeys(ITEMS, "skipped"), "config": "failed"}


def test_a_path_that_nobody_reads_may_be_wrong(pytester: pytest.Pytester, in_place: Callable[..., Path]) -> None:
    """A team's own pair stands in the place of the config's."""
    in_place(("ROOT: pair,", "ROOT: pare,"))
    pytester.makeconftest(
        """
        import pytest
        from pathlib import Path
        from pytest_overfit.two_view.pair.index import locate_pair

        @pytest.fixture
        def overfit_pair():
            return locate_pair(Path("pair").resolve(), Path("pair/train.npz").resolve(), Path("pair/seg").resolve(), 0)

        @pytest.fixture
        def overfit_val_batch(overfit_batch):
            return overfit_batch
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", "-k", "config or pair or loader")
    assert outcomes(result) == dict.fromkeys(("config", "pair", "loader"), "passed")


def test_one_criterion_alone_tells_what_is_wrong(pytester: pytest.Pytester, in_place: Callable[..., Path]) -> None:
    """Whichever items are selected, the first of them."""
    in_place(("ROOT: pair,", "ROOT: pare,"))
    result = pytester.runpytest_inprocess("tiny.yaml::depth", "tiny.yaml::camera", SHORT)
    assert outcomes(result) == {"camera": "failed", "depth": "skipped"}
    result.stdout.fnmatch_lines(["tiny.yaml::camera: no such folder: *pare*"])


def test_the_run_comes_first_however_items_are_shuffled(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """So that its time is booked on an item of its name; other tests keep their places."""
    tiny()
    pytester.makepyfile(test_own="def test_a(): pass\ndef test_b(): pass")
    pytester.makeconftest("def pytest_collection_modifyitems(items): items.reverse()")
    result = pytester.runpytest_inprocess("test_own.py", "tiny.yaml", "--collect-only", "-q")
    items = [line.rpartition("::")[2] for line in result.outlines if "::" in line]
    assert items == [*ITEMS, "test_b", "test_a"]


def test_the_time_of_the_run_is_its_own(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """No criterion takes longer."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", SHORT)
    durations = {name: report.duration for name, report in reports_of(result).items()}
    assert max((RUN, *CRITERIA), key=lambda name: durations[name]) == RUN


def test_what_was_judged_again_tells_nothing() -> None:
    """After a rerun that passes."""
    faults = Faults()
    error = OverfitError("no such file")
    faults.keep("pair", error, "no such file")
    assert faults.behind("loader", OverfitError("another"), needs=("pair",)) == "pair"
    assert faults.behind("loader", OverfitError("another"), needs=()) is None
    assert faults.behind("pair", error, needs=()) is None
    faults.held("pair")
    assert faults.behind("loader", error, needs=("pair",)) is None


def test_the_nearest_path_is_named(tmp_path: Path) -> None:
    """Below the last folder that is there; where nothing is near, how far the path goes."""
    (tmp_path / "scenes" / "0001").mkdir(parents=True)
    assert nearest_path(tmp_path / "scnes" / "0001") == f"did you mean {tmp_path / 'scenes' / '0001'}?"
    assert nearest_path(tmp_path / "x" / "y") == f"{tmp_path} is there, and has no x"


NAN = ("tests.support.tiny.Memoriser", "tests.support.tiny.NanCamera")
SCRUBS = ("pytest_overfit.two_view.reference.MultitaskLoss", "tests.support.saboteurs.ScrubbingLoss")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--overfit-strict", "--overfit-device=cpu"], ["finite"]),
        (["-k", "objective"], ["objective"]),
        (["-k", "objective or monotonic"], ["objective", "monotonic"]),
        (["-k", "objective or finite"], ["finite"]),
    ],
)
def test_something_is_red_however_a_config_is_run(
    pytester: pytest.Pytester, tiny: TinyConfig, args: list[str], expected: list[str]
) -> None:
    """Where the item that tells the fault is left out, those that it kept from being judged are red."""
    tiny(replace=(NAN, SCRUBS))
    result = pytester.runpytest_inprocess("tiny.yaml", *args)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert failed_items(result) == expected
