"""The commit that a record names, read from the files of git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_overfit.plugin.provenance import commit_of


def git(folder: Path, *arguments: str) -> str:
    given = ("-c", "user.name=a", "-c", "user.email=a@example.org", *arguments)
    done = subprocess.run(["git", *given], cwd=folder, capture_output=True, text=True, timeout=600, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit, and a folder in it."""
    git(tmp_path, "init", "-q")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("a", encoding="utf-8")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_the_commit_is_gits(repository: Path) -> None:
    """On a branch, in a folder below, with packed references, and without a branch."""
    head = git(repository, "rev-parse", "HEAD")[:12]
    assert commit_of(repository) == commit_of(repository / "inner") == head
    git(repository, "pack-refs", "--all")
    assert commit_of(repository) == head
    git(repository, "checkout", "-q", "--detach")
    assert commit_of(repository) == head


def test_a_work_tree_has_its_own_commit(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its .git is a file."""
    other = tmp_path_factory.mktemp("other") / "tree"
    git(repository, "worktree", "add", "-q", "-b", "second", str(other))
    (other / "more").write_text("b", encoding="utf-8")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "second")
    assert commit_of(other) == git(other, "rev-parse", "HEAD")[:12] != commit_of(repository)


def test_no_repository_has_no_commit(tmp_path: Path) -> None:
    """Nor one whose files are others."""
    assert commit_of(tmp_path) == ""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("anything else\n", encoding="utf-8")
    assert commit_of(tmp_path) == ""
    (tmp_path / ".git" / "HEAD").write_bytes(b"\xff\xfe")
    assert commit_of(tmp_path) == ""
