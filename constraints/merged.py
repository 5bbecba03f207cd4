"""Print constraints.txt with the pins of the given files of this folder in place of its own.

    python constraints/merged.py pytest-7.4 python-3.10 > merged.txt

pip refuses two constraints files that pin one package to two versions, and whole copies would drift apart.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def name_of(pin: str) -> str:
    """The package of `name==version`, in the one spelling that pip compares."""
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0].strip()).lower()


def pins(path: Path) -> list[str]:
    """The lines of a constraints file, without comments."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def merged(*overlays: str) -> list[str]:
    """The pins of constraints.txt, then those of each overlay; a later file replaces what an earlier one says."""
    lines = pins(HERE.parent / "constraints.txt")
    for overlay in overlays:
        if not (HERE / f"{overlay}.txt").is_file():
            there = ", ".join(sorted(path.stem for path in HERE.glob("*.txt")))
            raise SystemExit(f"constraints/{overlay}.txt: no such file; there are: {there}")
        own = pins(HERE / f"{overlay}.txt")
        replaced = {name_of(line) for line in own}
        lines = [line for line in lines if name_of(line) not in replaced] + own
    return lines


if __name__ == "__main__":
    print("\n".join(merged(*sys.argv[1:])))
