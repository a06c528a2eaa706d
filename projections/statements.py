"""The statements of `queries.sql`, by name."""

from pathlib import Path

from carstore.sqlite.statements import parse_named

SQL: dict[str, str] = parse_named(
    Path(__file__).with_name("queries.sql").read_text(encoding="utf-8")
)
