"""The queries of docs/sql.md, by the heading they stand under."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"

_SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_QUERY = re.compile(r"```sql\n(.*?)```", re.DOTALL)

QUERIES: dict[str, str] = {
    title: query
    for title, text in _SECTION.findall(PAGE.read_text(encoding="utf-8"))
    for query in _QUERY.findall(text)
}
