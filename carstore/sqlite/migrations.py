"""From an empty file, or an older one, to the schema of this program.

`changes/N.sql` leads from schema N - 1 to N and is never changed once it was released. `schema.sql`
is where they all lead, to be read by people; a test compares the two.
"""

import sqlite3
from pathlib import Path

from carstore.sqlite.statements import split

SCHEMA = 2
"""The number of the newest change; kept in the file as `user_version`."""

APPLICATION_ID = 0x63617273
"""`cars`: marks the file as ours."""


def change(number: int) -> list[str]:
    """The statements that lead from schema `number - 1` to `number`."""
    script = Path(__file__).with_name("changes") / f"{number}.sql"
    return split(script.read_text(encoding="utf-8"))


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to `SCHEMA`. The caller holds the write transaction and commits it."""
    # Imported here, since it costs more than opening a file that needs nothing done.
    from sqlite_utils import Database, Migrations

    migrations = Migrations("carstore")

    def register(number: int) -> None:
        @migrations(name=str(number))
        def follow(db: Database) -> None:
            for statement in change(number):
                db.conn.execute(statement)

    for number in range(1, SCHEMA + 1):
        register(number)
    migrations.apply(Database(connection, recursive_triggers=False))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
