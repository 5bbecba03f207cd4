"""The tables of docs/settings.md, out of the definitions; `python docs/settings_tables.py` writes them."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_overfit.settings.keywords import Setting, keys_of_a_config, table_of_settings

PAGE = Path(__file__).with_name("settings.md")


def rendered(page: str) -> str:
    """The page with its tables as the definitions give them."""
    options = [f"| `{row.option}` | `overfit.{row.key}` |" for row in table_of_settings() if row.option]
    tables = {
        "keywords": list(map(_row, table_of_settings())),
        "keys of a config": list(map(_row, keys_of_a_config())),
        "options": options,
    }
    for name, rows in tables.items():
        table = re.compile(rf"(<!-- {name} -->\n[^\n]*\n\|[-|]+\|\n).*?(<!-- end -->)", re.DOTALL)
        page = table.sub(lambda match, rows=rows: match[1] + "".join(f"{row}\n" for row in rows) + match[2], page)  # type: ignore[misc]
    return page


def _row(setting: Setting) -> str:
    without, under = setting.default, setting.in_config
    default = under if not setting.name or without == under else f"{without}; {under}"
    names = [f"`{setting.name}`"] if setting.name else []
    cells = (*names, f"`{setting.key}`", setting.kind, default, setting.help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
