"""A family of causes from outside: it is found, named, documented, and its example is its test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pytest_overfit import Cause, Evidence, run_overfit
from pytest_overfit.diagnose import catalogue, causes, custom_rules
from pytest_overfit.diagnose.family import Family, Question
from pytest_overfit.run.context import RunContext
from tests.support.examples import BLOCK, fixed, run_example, told

TEXT = """
### house.last-bias

The last layer has a bias, which this house does not want.

```python
import torch
from pytest_overfit import run_overfit

torch.manual_seed(0)
batch = torch.randn(4, 3), torch.randn(4, 1)
last = torch.nn.Linear(32, 1)  # fixed: last = torch.nn.Linear(32, 1, bias=False)
net = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Tanh(), last)
adam = torch.optim.Adam(net.parameters(), lr=0.01)
result = run_overfit(net, batch, torch.nn.functional.mse_loss, optimizer=adam, max_steps=600)
```

- **Symptom**: none.
- **Evidence**: shown, certain: the mean of what is predicted.
- **Fix**: leave it out.
"""


@dataclass(frozen=True)
class PredictedMean:
    """What the question answers."""

    output: str
    mean: float


def predicted_mean(run: RunContext, outputs: Mapping[str, Tensor]) -> PredictedMean | None:
    """The mean of the first output; None where there is none."""
    return next((PredictedMean(name, float(tensor.mean())) for name, tensor in outputs.items()), None)


def last_bias(evidence: Evidence) -> Iterator[Cause]:
    """A house rule."""
    found = evidence.fact(PredictedMean)
    if found is not None and any(p.name == "2.bias" for p in evidence.record.parameters):
        observed = f"{found.output} has a mean of {found.mean:.3g}, with a bias in the last layer"
        yield Cause("house.last-bias", "2.bias", observed, "bias=False", "shown", certain=True)


HOUSE = Family(
    group="house",
    docs=TEXT,
    rules=(last_bias,),
    questions=(Question("the mean of what is predicted", predicted_mean),),
)
(EXAMPLE,) = (match["code"] for match in BLOCK.finditer(TEXT))


def test_its_example_is_told_its_cause_and_the_mended_one_passes() -> None:
    """As rules of a call; the question is asked, and the rule finds its answer by its type."""
    run = partial(run_overfit, rules=[HOUSE])
    broken = run_example(_without_import(EXAMPLE), "house", run)
    assert [(cause.id, cause.certain) for cause in broken.causes] == [("house.last-bias", True)], told(broken)
    assert "has a mean of" in broken.causes[0].observed
    mended = run_example(_without_import(fixed(EXAMPLE)), "house", run)
    assert mended.passed, told(mended)


def _without_import(code: str) -> str:
    """The example with the ``run_overfit`` that it is given."""
    return code.replace("from pytest_overfit import run_overfit\n", "")


def test_an_installed_package_registers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the entry point group of rules; ``allow`` takes its id."""

    class Point:
        def load(self) -> Any:
            return HOUSE

    custom_rules.installed_family.cache_clear()
    monkeypatch.setattr(custom_rules, "entry_points", lambda group: [Point()])
    try:
        assert [cause.id for cause in run_example(_without_import(EXAMPLE), "house", run_overfit).causes] == [
            "house.last-bias"
        ]
        allowing = partial(run_overfit, allow=["house.last-bias"])
        assert run_example(_without_import(EXAMPLE), "house", allowing).passed
    finally:
        custom_rules.installed_family.cache_clear()


def test_its_docs_are_written_as_ours_are() -> None:
    """A heading per group, a section per cause."""
    written = catalogue.sections((*catalogue.FAMILIES, HOUSE))
    assert f"## house\n\n{TEXT.strip()}" in written
    assert catalogue.ids_of([HOUSE]) == {"house": ("house.last-bias",)}


def test_a_file_in_the_folder_is_all_that_a_cause_of_ours_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found by being there, with its rule, its id and its section."""
    (tmp_path / "house_rules.py").write_text(
        "from pytest_overfit.diagnose.family import Family\n"
        "def rule(evidence): yield from ()\n"
        'FAMILY = Family("data", "### shop-closed\\n\\nThe shop is closed.", (rule,), order=1)\n'
    )
    monkeypatch.setattr(causes, "__path__", [*causes.__path__, str(tmp_path)])
    found = catalogue.discover()
    assert found[0].rules[0].__name__ == "rule"
    assert "shop-closed" in catalogue.ids_of(found)["data"]
    assert "### shop-closed\n\nThe shop is closed." in catalogue.sections(found)
    monkeypatch.delitem(sys.modules, f"{causes.__name__}.house_rules")


PLAIN = """
import sys, torch
from pytest_overfit import run_overfit
batch = {batch}
loss = lambda model, batch: (model(batch["x"]) ** 2).mean()
result = run_overfit(torch.nn.Linear(3, 1), batch, loss, max_steps=3, diagnose_seconds=0.5)
assert result.evidence is not None
sys.exit(any(name.startswith("pytest_overfit.two_view.diagnose") for name in sys.modules))
"""
VIEWS = '{"x": torch.ones(2, 3), "depths": torch.ones(2), "extrinsics": torch.ones(2), "intrinsics": torch.ones(2)}'


@pytest.mark.parametrize(("batch", "imported"), [('{"x": torch.ones(2, 3)}', 0), (VIEWS, 1)], ids=["plain", "views"])
def test_a_plain_run_imports_nothing_of_two_views(batch: str, imported: int) -> None:
    """Neither questions nor rules; a batch with their keys does, so that the check can fail."""
    code = PLAIN.replace("{batch}", batch)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (imported, "")
