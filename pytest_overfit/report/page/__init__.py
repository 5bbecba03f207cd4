"""Documents as HTML: an overview, and a page per run with curves, pictures, causes and numbers."""

from pytest_overfit.report.page.write import write_pages

__all__ = ["write_pages"]
