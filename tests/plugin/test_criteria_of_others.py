"""A criterion that another package registers: asked for, judged, listed and documented as ours are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.outside import install, python

CRITERION = '''
from dataclasses import dataclass
from pytest_overfit.settings.criterion import Criterion, bounded
from pytest_overfit.judge.finding import Finding

@dataclass(frozen=True)
class Steps:
    """At least so many steps are made."""

    least: int = bounded(3, at_least=1, whole=True)
    loud: bool = False

def judge_steps(record, setting, criteria):
    made = record.steps
    return Finding("steps", made >= setting.least, f"{made} steps", f"at least {setting.least}")

def raises(record, setting, criteria):
    return 1 / 0

STEPS = Criterion("steps", "the run is long enough", Steps(), judge_steps, on=False, on_in_config=False)
BROKEN = Criterion("broken", "it raises", judge=raises, on=False, on_in_config=False)
'''
RUN = """
import torch
from pytest_overfit import run_overfit

def overfit(**asked):
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    batch = (torch.ones(1, 2), torch.zeros(1, 1))
    return run_overfit(model, batch, torch.nn.MSELoss(), objective=0.5, max_steps=60, diagnose=False, **asked)
"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with an installed package that registers two criteria."""
    points = "[pytest_overfit.criteria]\nsteps = their_criteria:STEPS\nbroken = their_criteria:BROKEN\n"
    return install(tmp_path, "their_criteria", CRITERION, points)


def test_it_is_judged_in_a_call(outside: Path) -> None:
    """By its keyword: off, on, and with a setting of its own; a wrong one is an error that says what is allowed."""
    code = f"""{RUN}
print([finding.name for finding in overfit().findings])
for asked in (True, {{"least": 1000}}):
    print(overfit(steps=asked).finding("steps").text())
print(overfit(steps={{"least": 0}}))
"""
    told = python(outside, code)
    assert "'supervised', 'constant_batch', 'finite', 'gradients', 'objective'" in told
    assert [line.partition(", ")[2] for line in told.splitlines() if line.startswith("steps: ")] == [
        "allowed at least 3",
        "allowed at least 1000",
    ]
    assert "steps.least: found 0, allowed: a whole number of at least 1" in told


def test_it_is_an_item_of_a_config(outside: Path) -> None:
    """By its key under `overfit.criteria`; the markers and the page list it."""
    config = "exp_name: x\nimg_size: 28\noverfit: {budget: {max_steps: 2}, criteria: {steps: {least: 9}}}\n"
    (outside / "a.yaml").write_text(config, encoding="utf-8")
    command = ("-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "--overfit-config", "a.yaml")
    items = python(outside, "", *command)
    assert "a.yaml::generates" not in items
    assert items.index("a.yaml::prediction") < items.index("a.yaml::steps") < items.index("a.yaml::defects")
    assert "steps             the run is long enough: true, false, or a mapping of least and loud" in python(
        outside, "", "-m", "pytest", "--markers"
    )
    rows = python(outside, "from pytest_overfit.settings.keywords import table_of_settings; print(table_of_settings())")
    assert "Setting(name='steps', key='criteria.steps', kind='true, false, or a mapping of least and loud'" in rows


def test_it_is_asked_for_in_a_marker(outside: Path) -> None:
    """A marked test fails by it, and its table shows the row."""
    test = f"import pytest, torch\n{RUN}".replace("from pytest_overfit import run_overfit\n", "").split("def ")[0]
    test += """
@pytest.mark.overfit(steps={"least": 1000}, objective=0.5, max_steps=60)
def test_steps(overfit):
    overfit(torch.nn.Linear(2, 1), (torch.ones(1, 2), torch.zeros(1, 1)), torch.nn.MSELoss())
"""
    (outside / "test_steps.py").write_text(test, encoding="utf-8")
    told = python(outside, "", "-m", "pytest", "-p", "no:cacheprovider", "-q", "test_steps.py")
    assert "1 failed" in told
    assert "allowed at least 1000" in told


def test_one_that_raises_is_named(outside: Path) -> None:
    """It is the error of its package, and no verdict."""
    assert "the criterion broken raised ZeroDivisionError" in python(outside, f"{RUN}\noverfit(broken=True)")


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ("camera = their_criteria:STEPS", "a Python name that no other criterion has"),
        ("steps = their_criteria:judge_steps", "a Criterion named 'steps'"),
        ("steps = their_criteria:BROKEN", "a Criterion named 'steps'"),
        ("steps = no_such_module:STEPS", "the criterion steps cannot be imported, ModuleNotFoundError"),
    ],
)
def test_what_is_no_criterion_is_refused(outside: Path, point: str, told: str) -> None:
    """A taken name, another object, a module that is not there."""
    points = outside / "their_criteria-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[pytest_overfit.criteria]\n{point}\n", encoding="utf-8")
    assert told in python(outside, f"{RUN}\noverfit(steps=True)")


def test_start_up_reads_no_entry_points(outside: Path) -> None:
    """The plugin installed and unused imports neither the registry nor their package; asked for, it does."""
    (outside / "test_a.py").write_text("def test_a(): pass\n", encoding="utf-8")
    for option, seen in ((), False), (("--markers",), True):
        code = f"""
import pytest, sys
pytest.main(["-q", "-p", "no:cacheprovider", "test_a.py", *{option!r}])
print("loaded", [name in sys.modules for name in ("pytest_overfit.settings.criteria_registry", "their_criteria")])
"""
        assert f"loaded [{seen}, {seen}]" in python(outside, code)
