"""How Sphinx builds the site: ``python -m sphinx -W -q docs site``."""

import importlib.metadata

project = "pytest-overfit"
author = "The pytest-overfit developers"
release = importlib.metadata.version("pytest-overfit")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["pictures"]

html_theme = "furo"
html_title = f"pytest-overfit {release}"
html_show_copyright = False
