"""The pages as a site: it builds without a warning, its links lead somewhere, and what it shows is what happens."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.sessions import HANGS, REPOSITORY, keep_modules, outcomes

DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
PAGES = sorted([*DOCS.glob("*.md"), *REPOSITORY.glob("*.md"), *(REPOSITORY / "examples").rglob("*.md")])
RUN = re.compile(r"(?:^<!-- exit (?P<code>\d) -->\n)?^```bash\n(?P<lines>.*?)^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = ("bash", "python", "yaml")
OWN_TESTS = {  # page -> who runs its blocks, beside this file
    "causes.md": "tests/docs/test_causes.py",
    "forms.md": "tests/docs/test_snippets.py",
    "trainers.md": "tests/docs/test_trainers.py",
    "trainers-hydra.md": "tests/docs/test_trainers_hydra.py",
    "reading-a-report.md": "tests/docs/test_reading.py",
    "distributed.md": "tests/trainer",
    "twins.md": "tests/docs/test_twins.py",
    "CONTRIBUTING.md": "tests/plugin/test_criteria_of_others.py",
    "README.md": ".ci/run",
}
HERE = ("config.md", "first-test.md", "ci.md", "guide.md", "guide.zh.md")


@pytest.fixture(autouse=True)
def sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions inside the test keep torch."""
    keep_modules(monkeypatch)


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(*command: str, at: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a user types it, with the programs of this environment first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return subprocess.run(
        command,
        cwd=at,
        env={**kept, "PATH": path, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every page is in the table of contents, every link between pages and to a heading leads somewhere."""
    built = run(
        sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(tmp_path / "site"), at=REPOSITORY
    )
    assert (built.returncode, built.stderr) == (0, "")
    assert (tmp_path / "site" / "guide.zh.html").exists()


def test_a_dead_link_would_fail_the_site(tmp_path: Path) -> None:
    """A page that links to a heading which is not there."""
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(REPOSITORY / "CHANGELOG.md", tmp_path)
    with (tmp_path / "docs" / "faq.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](passing.md#nowhere)\n")
    built = run(sys.executable, "-m", "sphinx", "-W", "-q", "docs", str(tmp_path / "site"), at=tmp_path)
    assert built.returncode != 0
    assert "nowhere" in built.stderr


def dead(page: Path) -> list[str]:
    """The links of a page to files that are not there; those of the site's own markup are Sphinx's to check."""
    linked = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return [link for link in linked if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    """From the folder of the page."""
    assert dead(page) == []


def test_a_dead_link_to_a_file_is_found(tmp_path: Path) -> None:
    """Its name is told."""
    (tmp_path / "page.md").write_text("[a](page.md#there) [b](gone.md) [c](https://example.org)", encoding="utf-8")
    assert dead(tmp_path / "page.md") == ["gone.md"]


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), *REPOSITORY.glob("*.md")], ids=lambda page: page.name)
def test_every_block_is_run_by_somebody(page: Path) -> None:
    """What only shows a command has the language console or text."""
    if not any(blocks(page, language) for language in LANGUAGES) or page.name in HERE:
        return
    runner = REPOSITORY / OWN_TESTS[page.name]
    assert runner.exists()


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    """At most 150 lines; a machine runs its two bash blocks."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    main, suite = blocks(README, "bash")
    assert main.splitlines() == [
        "pip install -c constraints.txt .",
        "pytest --overfit-config example_configs/single_pair_test.yaml",
    ]
    assert suite.splitlines() == ['pip install -c constraints.txt ".[test]"', "pytest -q -n auto"]


def test_the_failure_of_the_readme_is_what_a_session_prints(pytester: pytest.Pytester) -> None:
    """Its test with the learning rate that its text names, number for number but for the digits."""
    (shown,) = [block for block in blocks(README, "text") if block.startswith("E ")]
    code = next(block for block in blocks(README, "python") if "def test_" in block)
    pytester.makepyfile(test_model=code.replace("CrossEntropyLoss())", "CrossEntropyLoss(), lr=1e-5)"))
    result = pytester.runpytest_inprocess("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    told = [line for line in result.outlines if line.startswith("E ")]

    def without_digits(lines: list[str]) -> list[str]:
        return [re.sub(r"[\d.]+(e-?\d+)?", "N", line).rstrip() for line in lines]

    assert without_digits(told)[: len(shown.splitlines())] == without_digits(shown.splitlines())


def test_the_first_tests_pass(pytester: pytest.Pytester) -> None:
    """The blocks of the page are one file."""
    pytester.makepyfile("\n\n".join(blocks(DOCS / "first-test.md", "python")))
    pytester.runpytest_inprocess("-p", "no:randomly").assert_outcomes(passed=2)


def test_both_guides_have_the_same_commands() -> None:
    """And as many sections."""
    english, chinese = DOCS / "guide.md", DOCS / "guide.zh.md"
    for language in ("bash", "text"):
        assert blocks(english, language) == blocks(chinese, language)
    sections = [page.read_text(encoding="utf-8").count("\n## ") for page in (english, chinese)]
    assert sections[0] == sections[1] == 8


def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    """Its blocks, one after the other in an empty folder."""
    said = {}
    for match in RUN.finditer((DOCS / "guide.md").read_text(encoding="utf-8")):
        done = run("bash", "-e", "-c", match["lines"], at=tmp_path, OMP_NUM_THREADS="1")
        assert done.returncode == int(match["code"] or 0), f"{match[0]}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
        said[match["lines"]] = (done.stdout, match["code"])
    assert list(said) == blocks(DOCS / "guide.md", "bash")
    (failing,) = [out for out, code in said.values() if code]
    assert "frozen (" in failing
    assert "实验记录" in next((tmp_path / "overfit_report" / "runs").glob("*/record.md")).read_text(encoding="utf-8")


def test_the_config_of_a_team_is_read(pytester: pytest.Pytester) -> None:
    """Model and loss of a package of the team's own, with the keys of the page."""
    (config,) = blocks(DOCS / "config.md", "yaml")
    pytester.makepyfile(
        **{
            "my_package/__init__": """
                from pytest_overfit.two_view.reference import MultitaskLoss, TwoViewTransformer

                class MyTwoViewModel(TwoViewTransformer): ...
                class MyLoss(MultitaskLoss): ...
            """
        }
    )
    pytester.makefile(".yaml", single_pair_test=config)
    made = run(sys.executable, "-m", "pytest_overfit.cli", "pair", "create", "--render", at=pytester.path)
    assert made.returncode == 0, made.stderr
    settings = (
        "img_size=112",
        "overfit.budget.max_steps=3",
        'optim.frozen_module_names=["*aggregator.frame_blocks.0*"]',
    )
    result = pytester.runpytest_inprocess(
        "--overfit-config=single_pair_test.yaml",
        *(f"--overfit-set={each}" for each in settings),
        "--overfit-log-dir=logs",
    )
    found = outcomes(result)
    assert {found[name] for name in ("config", "pair", "loader", "finite")} == {"passed"}


STEPS = yaml.safe_load((REPOSITORY / "action.yml").read_text(encoding="utf-8"))["runs"]["steps"]


def test_the_action_runs_tests_and_keeps_a_report(tmp_path: Path) -> None:
    """Its script, with what a workflow hands over."""
    code = next(block for block in blocks(README, "python") if "def test_" in block)
    (tmp_path / "test_model.py").write_text(code, encoding="utf-8")
    asked = {"TESTS": "test_model.py\n", "CONFIG": "", "ARGS": "-q -x", "DEVICE": "cpu", "REPORT": "a report"}
    asked["ACTION"] = str(REPOSITORY)
    done = run("bash", "-eo", "pipefail", "-c", STEPS[1]["run"], at=tmp_path, **asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"index.html", "junit.xml"} <= {path.name for path in (tmp_path / "a report").iterdir()}


def composite(at: Path, **inputs: str) -> tuple[int, str]:
    """What a forge does with the steps that are shell lines: inputs over their defaults, then one after the other.

    The first step, which installs, is asked what it would do.
    """
    action = yaml.safe_load((REPOSITORY / "action.yml").read_text(encoding="utf-8"))
    given = {name: each["default"] for name, each in action["inputs"].items()} | inputs
    values = {f"inputs.{name}": value for name, value in given.items()} | {"github.action_path": str(REPOSITORY)}

    def filled(text: str) -> str:
        return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: values[found[1]], text)

    told = ""
    for step in (step for step in STEPS if "run" in step):
        env = {name: filled(value) for name, value in step.get("env", {}).items()}
        script = filled(step["run"]).replace("pip install", "pip install --dry-run --no-deps --no-build-isolation -q")
        done = run("bash", "-eo", "pipefail", "-c", script, at=at, GITHUB_ACTIONS="true",
                   GITHUB_STEP_SUMMARY=str(at / "summary.md"), **env)  # fmt: skip
        told += done.stdout + done.stderr
        if done.returncode:
            return done.returncode, told
    return 0, told


@pytest.mark.parametrize(("args", "code"), [("-q", 0), ("-q --overfit-max-steps 5", 1)])
def test_the_action_as_a_forge_runs_it(tmp_path: Path, args: str, code: int) -> None:
    """A config that passes, and one that fails: exit code, summary, annotation and the report that is kept."""
    for name in ("quick.yaml", "single_pair_test.yaml"):
        shutil.copy(REPOSITORY / "example_configs" / name, tmp_path)
    rc, told = composite(tmp_path, config="quick.yaml", args=args)
    assert rc == code, told
    assert ("::error file=single_pair_test.yaml,line=" in told) == bool(code)  # which has the limits
    head = (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()[0]
    assert head == ("## pytest-overfit: 1 of 1 run failed" if code else "## pytest-overfit: 1 run passed")
    assert (tmp_path / "overfit_report" / "index.html").exists()


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("-q\n-k 'model or nothing'\n", 0),
        ('-q -k "not model"', 5),
        ("-k 'open", 4),
    ],
)
def test_the_action_takes_its_options_as_a_shell_does(tmp_path: Path, args: str, code: int) -> None:
    """Over several lines, in quotes; a quote that is never closed is an error."""
    (tmp_path / "test_model.py").write_text("def test_my_model():\n    pass\n", encoding="utf-8")
    asked = {"TESTS": "test_model.py\n", "CONFIG": "", "ARGS": args, "DEVICE": "cpu", "REPORT": "report"}
    text = (REPOSITORY / "action.py").read_text(encoding="utf-8").replace('"--overfit-strict", ', "")
    (tmp_path / "action.py").write_text(text, encoding="utf-8")
    asked["ACTION"] = str(tmp_path)
    done = run("bash", "-eo", "pipefail", "-c", STEPS[1]["run"], at=tmp_path, **asked)
    assert done.returncode == code, done.stdout + done.stderr


def test_the_action_says_that_nothing_was_asked(tmp_path: Path) -> None:
    """No config and no test would be a gate that judges nothing."""
    done = run(
        "bash",
        "-eo",
        "pipefail",
        "-c",
        STEPS[1]["run"],
        at=tmp_path,
        TESTS="",
        CONFIG="",
        ARGS="",
        DEVICE="",
        REPORT="r",
        ACTION=str(REPOSITORY),
    )
    assert (done.returncode, done.stdout.strip()) == (4, "::error::give config or tests")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ("--overfit-reprot x", 4, "did you mean --overfit-report?"),
        ("--overfit-max-steps five", 4, "pytest ended with exit code 4 before any test"),
        ("--no-such-option", 4, "pytest ended with exit code 4 before any test"),
        ("-k 'open", 4, "No closing quotation"),
        ("nosuch.py", 4, "file or directory not found: nosuch.py"),
        ("broken", 2, "No module named 'nosuch_one'%0A"),
    ],
)
def test_whatever_ends_before_a_test_is_told_once(tmp_path: Path, args: str, code: int, said: str) -> None:
    """One annotation, without a traceback of ours, and the same on the page of the job."""
    (tmp_path / "test_model.py").write_text("def test_my_model(overfit):\n    pass\n", encoding="utf-8")
    (tmp_path / "broken").mkdir()
    for name in ("one", "two"):
        text = f"import nosuch_{name}\n"
        (tmp_path / "broken" / f"test_{name}.py").write_text(text, encoding="utf-8")
    asked = {"TESTS": "test_model.py", "ARGS": args, "ACTION": str(REPOSITORY), "GITHUB_ACTIONS": "true"}
    summary = tmp_path / "summary.md"
    script = STEPS[1]["run"]
    done = run("bash", "-c", script, at=tmp_path, GITHUB_STEP_SUMMARY=str(summary), **asked)
    assert done.returncode == code, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    assert len(told) == 1
    assert said in told[0]
    assert "nothing was " in summary.read_text(encoding="utf-8")
    assert "Traceback" not in done.stderr


def test_the_inputs_of_the_action_are_read_as_they_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks around a line are none of its name, a pattern is its files, an empty word is a word."""
    monkeypatch.chdir(tmp_path)
    for name in ("test_b.py", "test_a.py"):
        (tmp_path / name).touch()
    arguments = runpy.run_path(str(REPOSITORY / "action.py"))["arguments"]
    inputs = {"CONFIG": " a.yaml  \n\n", "TESTS": "test_*.py\ntest_a.py::test_it[1-2]", "ARGS": "-k '' -q"}
    words = arguments(inputs | {"REPORT": "", "DEVICE": ""})
    assert words[:5] == ["--overfit-config", "a.yaml", "test_a.py", "test_b.py", "test_a.py::test_it[1-2]"]
    assert words[5:8] == ["--overfit-strict", "--overfit-device", "cpu"]
    assert words[8:] == ["--overfit-report", "overfit_report", "--junitxml=overfit_report/junit.xml", "-k", "", "-q"]
    with pytest.raises(ValueError, match=r"tests: nosuch_\*.py fits no file"):
        arguments({"TESTS": "nosuch_*.py"})


def test_the_workflows_of_the_page_fit_the_action() -> None:
    """Every input that they set is one; the versions of Python are those that the plugin is tested on."""
    workflow, several = blocks(DOCS / "ci.md", "yaml")
    action = yaml.safe_load((REPOSITORY / "action.yml").read_text(encoding="utf-8"))
    for each in (workflow, several):
        assert set(yaml.safe_load(each)["jobs"]["overfit"]["steps"][-1]["with"]) <= set(action["inputs"])
    assert len(workflow.splitlines()) <= 11
    tested = re.search(r"PYTHONS = (\{.*\})", (REPOSITORY / "noxfile.py").read_text(encoding="utf-8"))
    assert tested is not None
    job = yaml.safe_load(several)["jobs"]["overfit"]
    assert job["strategy"]["matrix"]["python"] == [*ast.literal_eval(tested[1])]


def test_the_pins_for_another_python_are_printed(tmp_path: Path) -> None:
    """As README and the page of CI say it: no package twice, and those of that Python in the place of ours."""
    command = "python constraints/merged.py python-3.10 > merged.txt"
    for page in (README, DOCS / "ci.md"):
        assert command in page.read_text(encoding="utf-8")
    printed = run(sys.executable, *shlex.split(command)[1:3], at=REPOSITORY).stdout.splitlines()
    pins = dict(line.split("==") for line in printed if line and not line.startswith("#"))
    assert len(pins) == len([line for line in printed if line and not line.startswith("#")])
    own = (REPOSITORY / "constraints" / "python-3.10.txt").read_text(encoding="utf-8").splitlines()
    assert all(pins[line.partition("==")[0]] == line.partition("==")[2] for line in own if "==" in line)
    done = run(sys.executable, "constraints/merged.py", "python-3.13", at=REPOSITORY)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "constraints/python-3.13.txt: no such file" in done.stderr
    assert "python-3.10" in done.stderr
