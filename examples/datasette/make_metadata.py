"""Print what Datasette is to show of a database: titles, facets, the queries of docs/sql.md.

    python3 examples/datasette/make_metadata.py agents.db > metadata.json
    datasette agents.db --metadata metadata.json

Datasette knows a database by the name of its file, so the name is asked for. The standard library
is all this needs.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sql.md"

PARAMETERS = {
    "> 10 AND position <= 20": "> CAST(:after AS INTEGER) AND position <= CAST(:until AS INTEGER)",
    "'r1'": ":run",
    "'run/r1'": "'run/' || :run",
    "'run/r1/inbox'": "'run/' || :run || '/inbox'",
    "'report'": ":key",
    "'main'": ":scope",
    "'fetch'": ":tool",
    "'worker-1'": ":host",
    "= 4711": "= CAST(:pid AS INTEGER)",
    "'2026-01-31T12:00:00Z'": ":time",
    "<= 20\n": "<= CAST(:position AS INTEGER)\n",
    "MATCH 'second'": "MATCH :words",
}
"""The examples in the queries, and the fields of a form that Datasette makes of them."""

TABLES: dict[str, dict[str, Any]] = {
    "log": {
        "description": "Every event, in the order of position.",
        "sort_desc": "position",
        "facets": ["kind", "run_id"],
        "fts_table": "view_search_v1",
        "fts_pk": "position",
    },
    "runs": {
        "description": "Each execution of a plan.",
        "sort_desc": "started_at",
        "facets": ["status", "source"],
        "columns": {
            "started_at": "Microseconds since 1970 UTC",
            "ended_at": "Microseconds since 1970 UTC; empty: not finished",
        },
    },
    "actions": {
        "description": "Each action of each run: where it stands and what came out of it.",
        "facets": ["status", "tool", "agent"],
        "columns": {"duration_us": "Microseconds of all attempts, without the waits between them"},
    },
    "spans": {"description": "What took how long, attempt by attempt."},
    "costs": {
        "description": "What each agent has spent over all runs, failed attempts included.",
        "sort_desc": "cost_micros",
        "columns": {"cost_micros": "Millionths of a unit of the currency"},
    },
    "doubts": {"description": "Calls of which nobody knows whether they were carried out."},
    "state": {
        "description": "The newest value of each key of the state.",
        "facets": ["scope"],
    },
    "reuse": {"description": "Results that are remembered."},
    "approvals": {"description": "Calls that wait for people's consent."},
    "waits": {"description": "Actions that wait for a time or a signal."},
    "rules": {
        "description": "Rules that were ever registered.",
        "columns": {"removed_at": "Microseconds since 1970 UTC; empty: in force"},
    },
    "pursuits": {"description": "Goals that are pursued by one plan after the other."},
    "budgets": {
        "description": "What each budget allows, holds back and has spent, by unit.",
        "columns": {
            "limit_micros": "Millionths of the unit; empty: counted, not limited",
            "reserved_micros": "Millionths of the unit",
            "spent_micros": "Millionths of the unit",
        },
    },
}
"""What is shown of the views."""

VERSIONS = {"costs": 2, "runs": 2, "reuse": 2, "approvals": 2}
"""Of the views whose newest version is not the first."""

HIDDEN = (
    "_sqlite_migrations",
    "blobs",
    *[f"view_{name}_v{VERSIONS.get(name, 1)}" for name in TABLES if name != "log"],
)
"""Tables of which there is something better to look at, and values that may be sensitive."""


def queries() -> dict[str, dict[str, Any]]:
    """The queries of the page, by a name for the address."""
    made: dict[str, dict[str, Any]] = {}
    for section in re.split(r"(?m)^## ", PAGE.read_text(encoding="utf-8"))[1:]:
        title, _, text = section.partition("\n")
        found = re.search(r"```sql\n(.*?)```", text, re.DOTALL)
        if found is not None:
            name = re.sub(r"\W+", "_", title.lower()).strip("_")
            description = " ".join(text[: found.start()].split())
            sql = with_parameters(found[1].rstrip().rstrip(";"))
            made[name] = {"title": title, "sql": sql, "hide_sql": True}
            if description:
                made[name]["description"] = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", description)
    return made


def with_parameters(sql: str) -> str:
    """A query that asks for what is an example on the page."""
    for example, parameter in PARAMETERS.items():
        sql = f"{sql}\n".replace(example, parameter).rstrip("\n")
    return sql


def metadata(database: str) -> dict[str, Any]:
    """The whole file."""
    hidden = {name: {"hidden": True} for name in HIDDEN}
    return {
        "title": "carstore",
        "description": "What agents did, and what it means",
        "databases": {database: {"tables": {**TABLES, **hidden}, "queries": queries()}},
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_metadata.py FILE.db")
    print(json.dumps(metadata(Path(sys.argv[1]).stem), indent=2))
