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
from tests.support.sessions import CRITERIA, ITEMS, RUN, outcomes, reports_of

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
        ("no such folder: *pare", "data.train.dataset.dataset_configs.0.ROOT", "next: did you mean *pair[?]"),
    ),
    "split_file": (
        (("pair/train.npz", "pair/trian.npz"),),
        "config",
        ("no such file: *trian.npz", "data.train.dataset.dataset_configs.0.split_file", "did you mean *train.npz[?]"),
    ),
    "segmentation_root": (
        (("pair/seg", "pair/sge"),),
        "config",
        ("no such folder: *pair/sge", "dataset_configs.0.segmentation_root", "next: did you mean *pair/seg[?]"),
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
    "missing EXR": ((), "pair", ("pair: no such file", f"where: *{EXR}", "next: the index names it: *")),
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


def test_an_error_in_the_loss_is_a_failure_of_the_run(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the line of the user's that raised; no criterion is judged, and none has failed."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    tiny()
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def overfit_loss():
            return lambda predictions, batch: predictions["no_such_key"]
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", SHORT, "--junitxml=out.xml")
    passed = dict.fromkeys(("config", "pair", "loader"), "passed")
    assert outcomes(result) == {**dict.fromkeys(ITEMS, "skipped"), **passed, RUN: "failed"}
    result.stdout.fnmatch_lines(
        [
            "E * KeyError: 'no_such_key'",
            "skipped  supervised, constant_batch, finite and 8 more: not judged: ::run failed*",
            "tiny.yaml::run: KeyError: 'no_such_key', allowed a run that comes to a verdict",
            "  where: *conftest.py:5",
            "  next: look at that line; a traceback of it stands with this item",
        ]
    )
    assert sum(line.startswith("::error ") for line in result.outlines) == 1


def test_a_run_that_hung_has_failed(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The item of the run says where; no criterion fails beside it."""
    tiny()
    pytester.makeconftest(
        """
        import pytest
        from types import SimpleNamespace as Record

        @pytest.fixture
        def overfit_result():
            hang = Record(text=lambda: "did not come back within 2 s", where="loss at a.py:7")
            return Record(record=Record(hung=hang), runs=(), findings=(), causes=(), finding=lambda name: None)
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", "-k", "run or camera")
    assert outcomes(result) == {RUN: "failed", "camera": "skipped"}
    result.stdout.fnmatch_lines(["tiny.yaml::run: HUNG: did not come back within 2 s, *", "  where: loss at a.py:7"])


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


FROM_INSIDE = """
    import asyncio, unittest
    import pytest
    from tests.support.tiny import Memoriser

    class Ends(Memoriser):
        def forward(self, images):
            {line}

    @pytest.fixture
    def overfit_model():
        return Ends()
"""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("pytest.skip('nope')", "run: the run was skipped from inside: nope"),
        ("pytest.xfail('nope')", "run: the run was skipped from inside: nope"),
        ("raise unittest.SkipTest('nope')", "run: the run was skipped from inside: nope"),
        ("raise SystemExit(0)", "run: SystemExit: 0"),
        ("raise GeneratorExit", "run: GeneratorExit"),
        ("raise asyncio.CancelledError", "run: CancelledError"),
        ("pytest.fail('nope')", "nope"),
    ],
)
def test_whatever_a_model_raises_is_one_failure(
    pytester: pytest.Pytester, tiny: TinyConfig, line: str, told: str
) -> None:
    """Also what pytest, or Python, takes for the end of a test or of a process."""
    tiny()
    pytester.makeconftest(FROM_INSIDE.format(line=line))
    result = pytester.runpytest_inprocess("tiny.yaml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = outcomes(result)
    assert [name for name, outcome in found.items() if outcome == "failed"] == [RUN]
    assert {name for name, outcome in found.items() if outcome == "skipped"} == set(CRITERIA)
    assert told in reports_of(result)[RUN].longreprtext
    assert "pytest_overfit/" not in str(result.outlines[-5:])


def test_a_model_that_skips_the_run_of_a_call_has_failed(pytester: pytest.Pytester) -> None:
    """As under a config; a fixture that skips is the usual way out."""
    pytester.makepyfile(
        """
        import pytest, torch

        class Skips(torch.nn.Linear):
            def forward(self, x): pytest.skip("nope")

        @pytest.fixture
        def overfit_model(): pytest.skip("no weights")

        def test_inside(overfit):
            overfit(Skips(2, 1), (torch.zeros(1, 2), torch.zeros(1, 1)), torch.nn.functional.mse_loss)

        def test_fixture(overfit): overfit(data=torch.zeros(1))
        """
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*the run was skipped from inside: nope*"])


def test_a_fixture_may_skip_a_config(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """For want of weights, say; a strict session asks for more."""
    tiny()
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_model(): pytest.skip('no weights')")
    found = outcomes(pytester.runpytest_inprocess("tiny.yaml"))
    assert set(found.values()) == {"passed", "skipped"}
    assert found["config"] == found[RUN] == "skipped"


def test_a_model_without_parameters_fails_one_item(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The optimizer that cannot be built is told before the run."""
    tiny()
    pytester.makeconftest(
        """
        import pytest, torch

        class Empty(torch.nn.Module):
            def forward(self, images): return {}

        @pytest.fixture
        def overfit_model(): return Empty()
        """
    )
    found = outcomes(pytester.runpytest_inprocess("tiny.yaml"))
    assert [name for name, outcome in found.items() if outcome == "failed"] == ["config"]
    assert found[RUN] == "skipped"


@pytest.mark.parametrize(
    ("fixture", "item"),
    [
        ("overfit_loss", "config"), ("overfit_pair", "pair"), ("overfit_dataset", "loader"),
        ("overfit_loader", "loader"), ("overfit_batch", RUN),
    ],
)  # fmt: skip
def test_a_fixture_that_forgets_to_return_is_named(
    pytester: pytest.Pytester, tiny: TinyConfig, fixture: str, item: str
) -> None:
    """None is no loss, and not the config's either; what is allowed is told."""
    tiny()
    pytester.makeconftest(f"import pytest\n\n@pytest.fixture\ndef {fixture}(): print('made')")
    result = pytester.runpytest_inprocess("tiny.yaml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [name for name, outcome in outcomes(result).items() if outcome == "failed"] == [item]
    result.stdout.fnmatch_lines(
        [
            f"*::{item}: the fixture gives None, allowed *",
            f"*where: {fixture}",
            f"*next: return it*`def {fixture}(...)`*",
        ]
    )


def test_a_model_that_forgets_to_return_is_named(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Not the line of ours that met the None."""
    tiny()
    pytester.makeconftest(FROM_INSIDE.format(line="return None"))
    result = pytester.runpytest_inprocess("tiny.yaml")
    assert [name for name, outcome in outcomes(result).items() if outcome == "failed"] == [RUN]
    result.stdout.fnmatch_lines(
        ["*::run: the model returned None, allowed a mapping of predictions", "*forward of Ends"]
    )


def test_a_fixture_that_is_not_there_is_named(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """With the fixture that asks for it."""
    tiny()
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef overfit_model(no_such_fixture): return 1")
    result = pytester.runpytest_inprocess("tiny.yaml")
    assert [name for name, outcome in outcomes(result).items() if outcome == "failed"] == ["config"]
    result.stdout.fnmatch_lines(
        ["*::config: fixture 'no_such_fixture' not found, allowed *", "*where: *conftest.py:3, overfit_model"]
    )


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
    assert [name for name, outcome in outcomes(result).items() if outcome == "failed"] == expected


def test_a_traceback_shows_no_secret(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on the screen nor in JUnit, in an exception, what it was raised from, or what the model printed."""
    monkeypatch.setenv("HUB_TOKEN", "hf_q8Zr-5521")
    pytester.makepyfile(
        leaky="""
        from tests.support.tiny import Memoriser

        class Leaky(Memoriser):
            def __init__(self, token):
                super().__init__()
                self.token = token

            def forward(self, images):
                print("with", self.token)
                try:
                    raise KeyError(self.token)
                except KeyError as error:
                    raise RuntimeError(f"bad token {self.token}") from error
        """
    )
    tiny(
        replace=(("{_target_: tests.support.tiny.Memoriser}", "{_target_: leaky.Leaky, token: '${oc.env:HUB_TOKEN}'}"),)
    )
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess("tiny.yaml", "--junitxml=junit.xml", "-l")
    result.stdout.fnmatch_lines(["*RuntimeError: bad token [*][*][*]", "*FAILED*::run - RuntimeError: bad token [*]*"])
    assert [name for name, outcome in outcomes(result).items() if outcome == "failed"] == [RUN]
    shown = result.stdout.str() + result.stderr.str() + (pytester.path / "junit.xml").read_text(encoding="utf-8")
    assert "hf_q8Zr" not in shown
