"""What nobody is shown: values that came out of the environment, and those whose key says that they are secret.

A message shows ``***`` in their place. Paths in the problems of files are shown all the same: whoever sets
``${oc.env:DATA}`` has to read which file is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "***"
SHORTEST = 6  # signs; what is shorter stands in too many texts by chance
_WORD = r"(?:token|password|passwd|passphrase|secret|credentials?|key)"
_WORDS = re.compile(rf"{_WORD}$", re.IGNORECASE)
_IN_A_MAPPING = re.compile(rf"({_WORD}['\"]?\s*:\s*)('[^']*'|\"[^\"]*\"|[^\s,{{}}\[\]]+)", re.IGNORECASE)


class Secret(str):
    """A text that shows itself in no message: its ``repr`` is ``***``, wherever it stands in a list or a mapping."""

    __slots__ = ()

    def __repr__(self) -> str:
        return HIDDEN


def is_secret_key(key: str) -> bool:
    """Whether the last part of a key calls its value a secret.

    Example:
        >>> [is_secret_key(key) for key in ("wandb.api_key", "model.hf-token", "keys_to_log", "model.max_tokens")]
        [True, True, False, False]
    """
    return _WORDS.search(re.split(r"[.\[\]]+", key.rstrip("]"))[-1]) is not None


def is_from_environment(value: object) -> bool:
    """Whether a text is, letter by letter, a variable of the environment that is no path and not short.

    ``--overfit-set model.hub=$HUB_TOKEN`` reaches this process as the token itself.
    """
    if not isinstance(value, str) or len(value) <= SHORTEST or value not in os.environ.values():
        return False
    try:
        return not os.path.exists(value)  # noqa: PTH110 - Path.exists raises on what is no path
    except ValueError:
        return True


def told_override(text: str) -> str:
    """``key=value`` as a message may show it.

    Example:
        >>> told_override("hub.token=abc"), told_override("optim.optimizer.lr=1e-3")
        ('hub.token=***', 'optim.optimizer.lr=1e-3')
        >>> told_override("hub={name: a, token: abc}")
        'hub={name: a, token: ***}'
    """
    key, equals, value = text.partition("=")
    if equals and value and (is_secret_key(key.strip()) or is_from_environment(value)):
        return f"{key}={HIDDEN}"
    return key + equals + _IN_A_MAPPING.sub(lambda match: match[1] + HIDDEN, value)


def hide(text: str, secrets: Iterable[str]) -> str:
    """A text with ``***`` for every secret in it.

    Example:
        >>> hide("refused sk-12345678 as a key", ["sk-12345678", "ab"])
        'refused *** as a key'
    """
    for secret in sorted({each for each in secrets if len(each) >= SHORTEST}, key=len, reverse=True):
        for spelt in {secret, repr(secret)[1:-1]}:
            text = text.replace(str(spelt), HIDDEN)
    return text


def masked_name(name: str, secrets: Iterable[str]) -> str:
    """A name of runs and folders: what of it came out of the environment is ``***`` everywhere.

    Example:
        >>> masked_name(Secret("run-abc"), {"abc", "run-abc"}), masked_name(Secret("abc"), {"abc"})
        ('run-***', '***')

    Args:
        secrets: of the whole config, short ones and the name itself among them.
    """
    if not isinstance(name, Secret):
        return name
    text = str.__str__(name)
    parts = sorted({each for each in map(str.__str__, secrets) if each and each in text}, key=len, reverse=True)
    inner = re.compile("|".join(re.escape(part) for part in parts if part != text) or "(?!)")
    shown, count = inner.subn(HIDDEN, text)
    return shown if count else HIDDEN


def plain(node: Any) -> Any:
    """A tree of plain containers with plain text in the place of every secret: what a class is handed."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return str.__str__(node) if isinstance(node, Secret) else node
