"""README.md as an index shows it, without the files: links are absolute, or plain text where no address is known.

The address is that of the environment variable OVERFIT_ADDRESS, else the `Source` of `project.urls`, else the remote
`origin` of the checkout where that is one of http(s): `ADDRESS/blob/HEAD/docs/faq.md`. An sdist keeps what it has.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!https?:|mailto:|#)(?P<target>[^)\s]+)\)")


class LongDescription(MetadataHookInterface):
    """The hook that hatchling finds here."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        made = root / "PKG-INFO"
        if made.exists():
            said = made.read_text(encoding="utf-8").partition("\n\n")[2]
        else:
            text = (root / "README.md").read_text(encoding="utf-8")
            said = linked(text, address(root, metadata.get("urls", {})))
        metadata["readme"] = {"content-type": "text/markdown", "text": said}


def address(root: Path, urls: dict[str, str]) -> str:
    """Where the files of this repository can be read; empty where nobody has said."""
    if given := os.environ.get("OVERFIT_ADDRESS") or urls.get("Source"):
        return given.rstrip("/")
    asked = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
    return found.removesuffix(".git") if re.match(r"https?://[^@\s]+$", found) else ""


def linked(text: str, to: str) -> str:
    """A text whose links lead to the files under an address, or are their words alone.

    Example:
        >>> linked("[a](b.md) ![c](d.png)", "https://x.y/z")
        '[a](https://x.y/z/blob/HEAD/b.md) ![c](https://x.y/z/raw/HEAD/d.png)'
        >>> linked("[a](b.md) ![c](d.png)", "")
        'a c'
    """

    def lead(found: re.Match[str]) -> str:
        if not to:
            return found["text"]
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['text']}]({to}/{kind}/HEAD/{found['target']})"

    return LINK.sub(lead, text)
