"""`pytest-overfit doctor`: what this machine and this folder have for a run, and what is missing."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from pytest_overfit.errors.asking import Questions, Refused, Unanswerable, users_code

PACKAGE = "pytest-overfit"
EXR_SWITCH = "OPENCV_IO_ENABLE_OPENEXR"
OPTIONAL = ("pages", "hydra", "trainer")  # the extras that a user may want
BESIDE = ("pytest-xdist", "lightning", "pytorch-lightning", "transformers", "torchvision")
State = Literal["ok", "none", "bad"]
NO_TESTS = 5  # the exit code of pytest that collected nothing: here nothing is to be collected


@dataclass(frozen=True)
class Line:
    """Something that was looked at.

    Example:
        >>> print(Line("bad", "torch 2.0.0", "torch>=2.4 is wanted: pip install 'torch>=2.4'").text())
        BAD   torch 2.0.0: torch>=2.4 is wanted: pip install 'torch>=2.4'

    Args:
        state: ``none`` is missing and may be missing.
        what: what was looked at, and what was seen.
        next: what to do.
    """

    state: State
    what: str
    next: str = ""

    def text(self) -> str:
        """The line of the terminal."""
        mark = {"ok": "ok", "none": "-", "bad": "BAD"}[self.state]
        return f"{mark:5} {self.what}{': ' if self.next else ''}{self.next}"


def add_arguments(doctor: argparse.ArgumentParser) -> None:
    """The arguments of ``pytest-overfit doctor``."""
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace, _: argparse.ArgumentParser) -> int:
    bad = 0
    for look in (versions, optional, devices, depth_files, folder):
        for line in _looked(look):
            print(line.text(), flush=True)
            bad += line.state == "bad"
    print(f"{bad} thing{'s' * (bad != 1)} to mend" if bad else "all that is needed is there")
    return 1 if bad else 0


def _looked(look: Callable[[], Iterator[Line]]) -> list[Line]:
    """What a look sees; one at which an installed library breaks says so, and the others go on."""

    def seen() -> list[Line]:
        try:
            with users_code():
                return list(look())
        except Refused as refused:
            raise Unanswerable(str(refused)) from None

    questions = Questions()
    lines = questions.ask(look.__name__.replace("_", " "), seen, otherwise=[])
    return [*lines, *(Line("bad", each.question, each.why) for each in questions.not_asked)]


def versions() -> Iterator[Line]:
    """Python, and every package that pytest-overfit requires."""
    about = metadata.metadata(PACKAGE)
    yield Line("ok", f"{PACKAGE} {about['Version']}, Python {platform.python_version()}, {platform.platform()}")
    for requirement in _requirements(""):
        yield _requirement(requirement, missing="bad")


def optional() -> Iterator[Line]:
    """What the extras bring, and what is used where it is installed."""
    seen = {requirement.name for requirement in _requirements("")}
    for extra in OPTIONAL:
        for requirement in _requirements(extra):
            if requirement.name not in seen:
                seen.add(requirement.name)
                yield _requirement(requirement, missing="none", extra=extra)
    for name in BESIDE:
        if (found := _version(name)) is not None:
            yield Line("ok", f"{name} {found}")


def _requirements(extra: str) -> list[Requirement]:
    """Those of the package itself, or those that an extra adds."""
    parsed = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    if not extra:
        return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [each for each in parsed if each.marker is not None and not each.marker.evaluate({"extra": ""})
            and each.marker.evaluate({"extra": extra})]  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirement(requirement: Requirement, *, missing: State, extra: str = "") -> Line:
    wanted = f"{requirement.name}{requirement.specifier}"
    found = _version(requirement.name)
    if found is None:
        how = f'pip install "{PACKAGE}[{extra}]"' if extra else f"pip install '{wanted}'"
        return Line(missing, f"{requirement.name} is not installed", how)
    if not requirement.specifier.contains(found, prereleases=True):
        return Line("bad", f"{requirement.name} {found}", f"{wanted} is wanted: pip install '{wanted}'")
    return Line("ok", f"{requirement.name} {found}")


def devices() -> Iterator[Line]:
    """Where torch computes."""
    import torch

    from pytest_overfit.run.device import accelerators, describe_device

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    yield Line("ok", f"torch is a {build} build; {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    counted = [(kind, index) for kind, count in accelerators().items() for index in range(count)]
    found = [describe_device(torch.device(kind, index)) for kind, index in counted]
    if found:
        yield from (Line("ok", device) for device in found)
    else:
        yield Line("none", "no accelerator is found", "runs are on the CPU; --overfit-require-gpu would fail")


def depth_files() -> Iterator[Line]:
    """Whether depth in .exr files can be written and read, by both libraries."""
    import numpy as np

    from pytest_overfit.two_view.pair.exr_depth import read_exr, write_exr

    with tempfile.TemporaryDirectory() as place:
        path, depth = Path(place, "depth.exr"), np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4)
        write_exr(path, depth)
        same = bool((read_exr(path) == depth).all())
        yield Line(
            "ok" if same else "bad", "OpenEXR reads what it has written" if same else "OpenEXR reads other numbers"
        )
        code = f"import cv2; print(cv2.__version__, cv2.imread({str(path)!r}, cv2.IMREAD_UNCHANGED) is not None)"
        said = _run([sys.executable, "-c", code], {**os.environ, EXR_SWITCH: "1"})
    version, _, reads = said.stdout.strip().partition(" ")
    if reads == "True":
        switch = "" if os.environ.get(EXR_SWITCH) else f" where {EXR_SWITCH}=1 is set before cv2 is imported"
        yield Line("ok", f"OpenCV {version} reads .exr{switch}")
    else:
        yield Line(
            "none", f"OpenCV {version} reads no .exr", "a trainer that does wants: pip install 'opencv-python<5'"
        )


def folder() -> Iterator[Line]:
    """Whether pytest starts in this folder, with its ini file and conftest, and whether files can be written."""
    here = Path.cwd()
    told = _run([sys.executable, "-m", "pytest", "--collect-only", "--ignore-glob=*", "-p", "no:cacheprovider"])
    said = [line for line in (*told.stdout.splitlines(), *told.stderr.splitlines()) if line.strip()]
    if told.returncode in (0, NO_TESTS):
        ini = next(
            (line.partition("configfile: ")[2] for line in said if line.startswith("configfile: ")), "no ini file"
        )
        loaded = any(line.startswith("plugins: ") and "overfit-" in line for line in said)
        state: State = "ok" if loaded else "bad"
        hint = "" if loaded else "the plugin is not loaded: look for -p no:overfit and PYTEST_DISABLE_PLUGIN_AUTOLOAD"
        yield Line(state, f"pytest starts here ({ini})", hint)
    else:
        errors = [line for line in said if line.startswith("ERROR")] or said[-1:] or ["it said nothing"]
        yield Line("bad", "pytest does not start here", errors[0].removeprefix("ERROR: "))
    if os.access(here, os.W_OK):
        yield Line("ok", "logs and reports can be written here")
    else:
        yield Line("none", f"{here} is read-only", "--overfit-log-dir and --overfit-report name other folders")


def _run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
