"""The modules of this package are imported as they are: pytest rewrites the asserts of plugins, to explain them."""

from __future__ import annotations

import pytest


def import_as_written(pluginmanager: pytest.PytestPluginManager) -> None:
    """Takes this package from what is rewritten: no test of anybody's fails by an assert of ours.

    What is rewritten is compiled anew in every process where bytecode is not written, as in most containers: two
    hundred modules, and so again in every worker.
    """
    marked = getattr(getattr(pluginmanager, "rewrite_hook", None), "_must_rewrite", None)
    if isinstance(marked, set):
        marked -= {name for name in marked if name.partition(".")[0] == __name__.partition(".")[0]}
