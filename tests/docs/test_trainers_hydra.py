"""docs/trainers-hydra.md: its config runs in the miniature, and it leaves no key and no message out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.miniature import CONFIG, Session, checkout, sessions, trained
from tests.support.sessions import outcomes

__all__ = ["checkout", "sessions", "trained"]  # fixtures

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "trainers-hydra.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^<!-- config -->\n```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_config_of_the_page_is_green(trained: Session, checkout: Path) -> None:
    """In the miniature's checkout, in the place of its own config."""
    (text,) = BLOCK.findall(PAGE)
    (checkout / CONFIG).write_text(text, encoding="utf-8")
    found = outcomes(trained())
    assert found
    assert set(found.values()) == {"passed"}


def test_every_key_that_is_read_of_a_trainer_is_on_the_page() -> None:
    """Those of the miniature's config, and of this plugin's section for trainers."""
    rows = PAGE.partition("## Keys")[2].partition("## When")[0]
    config = yaml.safe_load((Path(__file__).resolve().parents[2] / "examples" / "hydra_trainer" / CONFIG).read_text())
    top = set(config) - {"defaults", "img_size", "patch_size", "num_workers", "data"}
    missing = [key for key in sorted(top) if f"`{key}" not in rows]
    missing += [f"optim.{key}" for key in config["optim"] if f"`optim.{key}`" not in rows]
    assert missing == []
    for key in ("overfit.checkpoint", "overfit.prepare_batch", "overfit.import_roots"):
        assert f"`{key}" in PAGE


@pytest.mark.parametrize(
    "words",
    ["the dummy batch", "gives no pixels for", "the loss gives no such term", "no group clips", "no such file"],
)
def test_every_message_of_the_page_is_one(words: str) -> None:
    """What the table of troubles quotes stands in the package."""
    package = Path(__file__).resolve().parents[2] / "pytest_overfit"
    assert words in PAGE
    assert any(words in path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
