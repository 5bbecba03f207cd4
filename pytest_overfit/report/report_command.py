"""`pytest-overfit report`: every form of a report, written again from its record."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_overfit.text import LANGUAGES


def add_arguments(report: argparse.ArgumentParser) -> None:
    """The arguments of ``pytest-overfit report``."""
    report.add_argument("record", type=Path, metavar="RECORD", help="a record.json, or the folder of a report")
    report.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: where the record is)")
    report.add_argument("--lang", choices=LANGUAGES, default=LANGUAGES[0], help="of experiment records and pages")
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace, _: argparse.ArgumentParser) -> int:
    from pytest_overfit.report.publish import render_again

    report, documents = render_again(options.record, output=options.output, lang=options.lang)
    for document in documents:
        print(f"{document.verdict}: {document.title}")
        print(document.result.summary() if document.result else f"  {document.error or document.state}")
    print(f"report: {report}")
    return 0
