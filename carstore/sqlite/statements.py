"""SQL by name: the statements of `queries.sql`, and the schema as a list of statements."""

import re
import sqlite3
from functools import cache
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def parse_named(text: str) -> dict[str, str]:
    """Statements of a `.sql` file by the name that precedes each."""
    parts = _NAME.split(text)
    return {name: _code(sql) for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


def _code(sql: str) -> str:
    lines = [line for line in sql.splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines).strip().rstrip(";")


SQL: dict[str, str] = parse_named(
    # Not by importlib.resources: importing that costs more than all that is done here.
    Path(__file__).with_name("queries.sql").read_text(encoding="utf-8")
)


@cache
def schema_text() -> str:
    """`schema.sql`: beside the package in a wheel, at the top of the tree in a checkout."""
    packaged = Path(__file__).with_name("schema.sql")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schema.sql").read_text(encoding="utf-8")


def split(script: str) -> list[str]:
    """The statements of a script; triggers hold semicolons, so SQLite says where one ends."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        if not pending.strip() and (not line.strip() or line.startswith("--")):
            continue
        pending += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(pending):
            statements.append(pending.strip().rstrip(";"))
            pending = ""
    if pending.strip():
        raise ValueError(f"the script ends within a statement: {pending[:60]!r}")
    return statements
