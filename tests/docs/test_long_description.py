"""What an index shows of README.md, in the metadata of a built wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("pyproject.toml", "README.md", "LICENSE", "docs/long_description.py", "pytest_overfit/__init__.py")
LINKS = re.compile(r"\]\(([^)#\s]*)[^)]*\)")


def described(folder: Path, monkeypatch: pytest.MonkeyPatch, address: str | None) -> str:
    """The long description of a wheel that is built from a few files of the checkout."""
    for name in KEPT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    monkeypatch.delenv("OVERFIT_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("OVERFIT_ADDRESS", address)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    with zipfile.ZipFile(next((folder / "dist").iterdir())) as wheel:
        (name,) = [each for each in wheel.namelist() if each.endswith("/METADATA")]
        metadata = wheel.read(name).decode()
    assert "Description-Content-Type: text/markdown" in metadata
    payload = message_from_string(metadata).get_payload()
    assert isinstance(payload, str)
    return payload


def test_with_an_address_every_link_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and pictures."""
    text = described(tmp_path, monkeypatch, "https://example.org/team/overfit/")
    links = LINKS.findall(text)
    assert len(links) == len(LINKS.findall((ROOT / "README.md").read_text(encoding="utf-8"))) > 20
    assert [link for link in links if not link.startswith("https://")] == []
    assert "https://example.org/team/overfit/blob/HEAD/docs/faq.md" in links
    assert "https://example.org/team/overfit/raw/HEAD/docs/pictures/terminal.png" in links


def test_without_one_no_link_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would lead to a file is its words."""
    text = described(tmp_path, monkeypatch, None)
    assert [link for link in LINKS.findall(text) if not link.startswith("https://")] == []
    assert "Every criterion".lower() in text.lower()
    (words,) = re.findall(r"\[([^\]]+)\]\(docs/comparison\.md\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert words in text
