"""The application hangs on the core by its registries: who does not use it does not load it."""

from __future__ import annotations

import subprocess
import sys

PLAIN = """
import sys, torch
from pytest_overfit import run_overfit
{before}
batch = torch.ones(1, 2), torch.zeros(1, 1)
for asked in {{"objective": 0.5}}, {{"objective": 1e-12, "camera": False, "prediction": False}}:
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    run_overfit(model, batch, torch.nn.MSELoss(), max_steps=30, **asked)
print([name for name in sys.modules if name.startswith("pytest_overfit.two_view")])
"""


def loaded(before: str = "") -> str:
    """The modules of two_view that a process has loaded after a run that passes, and one that is diagnosed."""
    code = PLAIN.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_a_run_of_a_plain_model_imports_nothing_of_it() -> None:
    """Trained, judged, diagnosed and told."""
    assert loaded() == "[]"


def test_the_check_of_imports_can_fail() -> None:
    """A criterion of two_view that is asked for is seen."""
    asked = "from pytest_overfit import Criteria; Criteria(prediction=True).names()"
    assert "pytest_overfit.two_view.frame_criteria" in loaded(asked)


def test_judging_a_plain_record_imports_nothing_of_it() -> None:
    """Limits on terms named camera and depth are those of any terms there."""
    code = (
        "import sys\n"
        "from pytest_overfit.settings.ladder import layer_of_keywords, resolve_settings\n"
        "from pytest_overfit.judge.verdict import judge\n"
        "from pytest_overfit.run.record import RunRecord\n"
        "asked = {'objective': 0.5, 'camera': 0.1, 'loss_depth': {'below': 0.2}, 'prediction': False}\n"
        "criteria = resolve_settings([layer_of_keywords('call', asked)], where='x').settings.criteria\n"
        "curves = {'objective': (1.0, 0.1), 'camera': (1.0, 0.5), 'depth': (1.0, 0.1)}\n"
        "record = RunRecord('x', 0, 'cpu', 2, 2, 'max_steps', 0.1, curves)\n"
        "found = {each.name: each.passed for each in judge(record, criteria, hold_steps=1)}\n"
        "print([found[name] for name in ('objective', 'camera', 'depth')])\n"
        "print([name for name in sys.modules if 'two_view' in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[True, False, True]", "[]"]
