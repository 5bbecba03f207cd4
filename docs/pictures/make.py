"""Makes the pictures of README out of a real session: its terminal, the overview and the page of a failed run.

python docs/pictures/make.py          # needs the extra "test", rich, and a Chromium
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
QUICK = HERE.parents[1] / "example_configs" / "quick.yaml"
COLUMNS = 118
TESTS = """
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def sample():
    torch.manual_seed(0)
    return torch.randn(8, 16), torch.arange(8) % 4


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.backbone(x))


class Probabilities(Classifier):
    def forward(self, x):
        return super().forward(x).softmax(-1)


def test_classifier(overfit):
    overfit(Classifier(), sample(), nn.CrossEntropyLoss())


@pytest.mark.overfit(max_steps=200)
def test_probabilities(overfit):
    overfit(Probabilities(), sample(), nn.CrossEntropyLoss())


def test_head_only(overfit):
    model = Classifier()
    overfit(model, sample(), nn.CrossEntropyLoss(), optimizer=torch.optim.Adam(model.backbone.parameters(), 1e-2))
"""


def main() -> None:
    """Runs the session and takes the pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_models.py").write_text(TESTS)
        for config in (QUICK, QUICK.with_name("single_pair_test.yaml")):
            shutil.copy(config, folder)
        run(folder, "test_models.py", "quick.yaml", "--overfit-report", "report")
        output = run(folder, "-k", "probabilities", "--overfit-report", "report", "--color=yes", "--tb=short")
        show_terminal(output, folder / "terminal.html")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 860}, device_scale_factor=1.5)
            take(page, folder / "report" / "index.html", HERE / "overview.png")
            (failed,) = (folder / "report" / "runs").glob("*test_probabilities*")
            take(page, failed / "index.html", HERE / "page.png")
            take(page, folder / "terminal.html", HERE / "terminal.png", selector="svg")
            browser.close()


def run(folder: Path, *args: str) -> str:
    """What a session prints, colours included."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", *args],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.replace(f"{folder}{os.sep}", "")


def show_terminal(output: str, path: Path) -> None:
    """The end of a session as a picture of a terminal."""
    lines = output.splitlines()
    first = next(number for number, line in enumerate(lines) if " FAILURES " in line)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text("$ pytest -k probabilities --overfit-report report", style="bold"))
    console.print(Text.from_ansi("\n".join(lines[first:])))
    style = "body{margin:0}svg{display:block;width:1180px}"
    path.write_text(f"<!doctype html><meta charset=utf-8><style>{style}</style>{console.export_svg(title='pytest')}")


def chromium() -> str:
    """The browser that is installed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("no Chromium found: install one, such as Debian's package chromium")
    return found


def take(page: Page, path: Path, picture: Path, *, selector: str | None = None) -> None:
    """A screenshot of the first screen of a page, or of one element."""
    page.goto(path.as_uri())
    page.wait_for_timeout(1500)
    if selector is None:
        page.screenshot(path=picture)
    else:
        page.locator(selector).first.screenshot(path=picture)


if __name__ == "__main__":
    main()
