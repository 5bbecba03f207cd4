"""The CI files are what the services document, and the gate in them can fail."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "examples" / "ci"
# Keys of a job, as docs.github.com and docs.gitlab.com list them; of each those that these files use.
GITHUB_JOB = {"if", "needs", "runs-on", "timeout-minutes", "permissions", "env", "steps"}
GITHUB_STEP = {"name", "if", "uses", "with", "run", "env"}
GITLAB_JOB = {
    *("stage", "image", "timeout", "interruptible", "before_script", "script", "artifacts", "extends", "rules"),
    *("tags", "cache", "variables"),
}
GITLAB_TOP = {"workflow", "variables"}


class Yaml12(yaml.SafeLoader):
    """As both services read it: ``on`` is a text there, and not true."""


Yaml12.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((CI / name).read_text(encoding="utf-8"), Yaml12)
    return loaded


def runs(job: dict[str, Any]) -> list[str]:
    """The shell lines of a job, of either service."""
    if "steps" in job:
        return [step["run"] for step in job["steps"] if "run" in step]
    return [*job.get("before_script", ()), *job.get("script", ())]


def gate_command(job: dict[str, Any]) -> list[str]:
    (command,) = [shlex.split(line) for line in runs(job) if "pytest --overfit" in line]
    assert command[0] == "exec"
    return command[1:]


def recipes() -> Iterator[tuple[str, str]]:
    """The scripts of every recipe, one per shell: where it is, and its text."""
    texts = [(path.name, path.read_text(encoding="utf-8")) for path in (*CI.glob("*.yml"), ROOT / "action.yml")]
    for page in sorted([*ROOT.glob("docs/*.md"), *CI.glob("*.md"), ROOT / "README.md"]):
        blocks = re.findall(r"(?ms)^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"))
        texts += [(f"{page.name}, block {number}", block) for number, block in enumerate(blocks)]
    for place, text in texts:
        for script in scripts(yaml.load(text, Yaml12)):
            yield place, script


def scripts(told: Any) -> Iterator[str]:
    """Whatever a service hands to a shell: the lines of a GitLab job in one, a step of GitHub's in one of its own."""
    for key, value in told.items() if isinstance(told, dict) else ():
        if key == "run" and isinstance(value, str):
            yield value
        elif key == "script" and isinstance(value, list):
            yield "\n".join(value)
        else:
            yield from scripts(value)
    for each in told if isinstance(told, list) else ():
        yield from scripts(each)


GITHUB, GITLAB = read("github-actions.yml"), read("gitlab-ci.yml")
JOBS = {
    "github gpu": GITHUB["jobs"]["gpu"],
    "github cpu": GITHUB["jobs"]["cpu"],
    "gitlab gpu": {**GITLAB[".overfit"], **GITLAB["overfit-gpu"]},
    "gitlab cpu": {**GITLAB[".overfit"], **GITLAB["overfit-cpu"]},
}


def test_github_knows_every_key() -> None:
    """Of the workflow, its jobs and their steps."""
    assert GITHUB.keys() == {"name", "on", "permissions", "concurrency", "env", "jobs"}
    assert GITHUB["on"].keys() == {"pull_request", "push", "workflow_dispatch"}
    assert GITHUB["jobs"].keys() == {"gpu", "cpu", "gate"}
    for job in GITHUB["jobs"].values():
        assert job.keys() <= GITHUB_JOB
        assert isinstance(job["timeout-minutes"], int)
        for step in job["steps"]:
            assert step.keys() <= GITHUB_STEP
            assert ("uses" in step) != ("run" in step)


def test_gitlab_knows_every_key() -> None:
    """Of the file and its jobs."""
    jobs = {name: job for name, job in GITLAB.items() if name not in GITLAB_TOP}
    assert jobs.keys() == {".overfit", "overfit-gpu", "overfit-cpu"}
    assert all(job.keys() <= GITLAB_JOB for job in jobs.values())
    assert GITLAB[".overfit"]["timeout"] == "30 minutes"


def test_github_gives_the_least_permissions() -> None:
    """Reading the code, and nothing where there is no code; major versions of actions are pinned."""
    assert GITHUB["permissions"] == {"contents": "read"}
    assert GITHUB["jobs"]["gate"]["permissions"] == {}
    used = [step for job in GITHUB["jobs"].values() for step in job["steps"] if "uses" in step]
    assert len(used) == 6
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in used)
    assert all(step["with"]["persist-credentials"] is False for step in used if "checkout" in step["uses"])


@pytest.mark.parametrize("name", JOBS)
def test_the_gate_is_strict_and_leaves_a_report(name: str) -> None:
    """Strict, with report and JUnit; a GPU is required where one was named."""
    command = gate_command(JOBS[name])
    assert command[:5] == ["python", "-m", "pytest", "--overfit-config", "$OVERFIT_CONFIG"]
    assert "--overfit-strict" in command
    assert command[command.index("--overfit-report") + 1] == "overfit_report"
    assert "--junitxml=overfit_report/junit.xml" in command
    assert ("--overfit-require-gpu" in command) == ("gpu" in name)
    assert ("--overfit-device" in command) == ("cpu" in name)


@pytest.mark.parametrize("name", JOBS)
def test_the_install_is_pinned(name: str) -> None:
    """By the constraints of the repository, with what the pages of the report need."""
    source = (
        "git+https://github.com/your-organisation/pytest-overfit@v0.2.0"  # where ci.md has it: no index knows the name
    )
    assert f'python -m pip install -c constraints.txt "pytest-overfit[pages] @ {source}" .' in runs(JOBS[name])


@pytest.mark.parametrize("name", ["github gpu", "github cpu"])
def test_github_keeps_the_report_of_a_failed_job(name: str) -> None:
    """The upload runs always, under a name of its own; pip's cache follows the constraints."""
    (upload,) = [step for step in JOBS[name]["steps"] if "upload-artifact" in step.get("uses", "")]
    assert upload["if"] == "${{ always() }}"
    assert upload["with"]["path"] == "overfit_report"
    assert upload["with"]["name"] == f"overfit-report-{name[-3:]}"
    (python,) = [step for step in JOBS[name]["steps"] if "setup-python" in step.get("uses", "")]
    assert (python["with"]["cache"], python["with"]["cache-dependency-path"]) == ("pip", "constraints.txt")


@pytest.mark.parametrize("name", ["gitlab gpu", "gitlab cpu"])
def test_gitlab_keeps_the_report_of_a_failed_job(name: str) -> None:
    """Always, with JUnit for the merge request; pip's cache is where it may be kept."""
    artifacts = JOBS[name]["artifacts"]
    assert artifacts["when"] == "always"
    assert artifacts["paths"] == ["overfit_report/"]
    assert artifacts["reports"] == {"junit": "overfit_report/junit.xml"}
    assert JOBS[name]["cache"]["paths"] == [".cache/pip"]
    assert GITLAB["variables"]["PIP_CACHE_DIR"] == "$CI_PROJECT_DIR/.cache/pip"


def test_exactly_one_of_two_jobs_runs() -> None:
    """The variable decides, and the fallback says that it is one."""
    gpu, cpu = GITHUB["jobs"]["gpu"], GITHUB["jobs"]["cpu"]
    condition = gpu["if"].removeprefix("${{ ").removesuffix(" }}")
    assert condition == "inputs.gpu_runner || vars.GPU_RUNNER"
    assert cpu["if"] == f"${{{{ !({condition}) }}}}"
    assert condition in gpu["runs-on"]
    assert GITLAB["overfit-gpu"]["rules"] == [{"if": "$GPU_RUNNER"}]
    assert GITLAB["overfit-cpu"]["rules"] == [{"if": "$GPU_RUNNER", "when": "never"}, {"when": "on_success"}]
    assert GITLAB["overfit-gpu"]["tags"] == ["$GPU_RUNNER"]
    assert "on the CPU" in runs(cpu)[0]
    assert "on the CPU" in GITLAB["overfit-cpu"]["script"][0]


@pytest.mark.parametrize("gpu", ["success", "failure", "cancelled", "skipped"])
@pytest.mark.parametrize("cpu", ["success", "failure", "cancelled", "skipped"])
def test_the_gate_passes_where_one_job_did(gpu: str, cpu: str) -> None:
    """The other was skipped; anything else is red, also where both were."""
    job = GITHUB["jobs"]["gate"]
    assert (job["if"], job["needs"]) == ("${{ always() }}", ["gpu", "cpu"])
    (script,) = runs(job)
    done = subprocess.run(["bash", "-e", "-c", script], env={"GPU": gpu, "CPU": cpu}, capture_output=True, check=False)
    assert (done.returncode == 0) == ({gpu, cpu} == {"success", "skipped"})


@pytest.mark.parametrize("name", JOBS)
def test_shell_lines_are_shell(name: str) -> None:
    """bash reads them."""
    for line in runs(JOBS[name]):
        subprocess.run(["bash", "-n", "-c", line], check=True)


def test_every_recipe_hands_its_shell_to_pytest() -> None:
    """A signal of the service goes to the shell, which passes none on: pytest takes its place, as the last command."""
    last = [(place, script.replace("\\\n", " ").strip().splitlines()[-1].strip()) for place, script in recipes()]
    told = [(place, line) for place, line in last if re.search(r"\bpytest\b(?!-)|\baction\.py\b", line)]
    assert {place for place, _ in told} >= {"action.yml", "github-actions.yml", "gitlab-ci.yml"}
    assert [(place, line) for place, line in told if not re.match(r"exec\s", line)] == []
