"""The statements of `queries.sql`, by name."""

from importlib import resources

from carstore.sqlite.statements import parse_named

SQL: dict[str, str] = parse_named(
    (resources.files("projections") / "queries.sql").read_text(encoding="utf-8")
)
