"""Gradients that a user's own class switches off: the line that does it, as it should read, which is tried."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from pytest_overfit import OverfitResult, run_overfit
from tests.support.told import told

NET = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 48), nn.Tanh())
        self.head = nn.Linear(48, 3)

{forward}
"""
FORWARDS = {
    "a block, deep within": """    def forward(self, x):
        with torch.no_grad():
            hidden = self.trunk(x)
        return self.head(hidden)""",
    "a decorator": """    @torch.no_grad()
    def features(self, x):
        return self.trunk(x)

    def forward(self, x):
        return self.head(self.features(x))""",
    "a block around everything": """    def forward(self, x):
        with torch.inference_mode(False), torch.no_grad():
            return self.head(self.trunk(x))""",
    "a switch": """    def forward(self, x):
        with torch.set_grad_enabled(False):
            hidden = self.trunk(x)
        return self.head(hidden)""",
}


def run(path: Path) -> OverfitResult:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    batch = (torch.randn(6, 6), torch.randn(6, 3))
    return run_overfit(module.Net, batch, torch.nn.functional.mse_loss, objective=0.01, max_steps=400, lr=0.01)


@pytest.mark.parametrize("name", FORWARDS)
def test_the_line_that_switches_gradients_off_is_told_as_it_should_read(tmp_path: Path, name: str) -> None:
    """Not the line of a library that is called there; with it the run passes."""
    path = tmp_path / f"net_{list(FORWARDS).index(name)}.py"
    path.write_text(NET.format(forward=FORWARDS[name]))
    result = run(path)
    assert told(result) in ("no-gradient", "loss-detached")
    match = re.fullmatch(rf".*{re.escape(path.name)}:(\d+): (.*)", result.causes[0].advice)
    assert match is not None, result.causes[0].text()
    lines = path.read_text().splitlines()
    place = int(match[1]) - 1
    assert "grad" in lines[place]
    lines[place] = lines[place][: len(lines[place]) - len(lines[place].lstrip())] + match[2]
    path = path.with_name(f"mended_{path.name}")
    path.write_text("\n".join(lines))
    assert run(path).passed
