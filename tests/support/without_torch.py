"""A plugin, ``-p tests.support.without_torch``: neither torch nor what needs it can be imported in the session."""

from __future__ import annotations

import sys

for name in ("torch", "accelerate", "pytorch_lightning", "transformers"):
    sys.modules[name] = None  # type: ignore[assignment]  # what an import takes for missing
