"""From an empty file, or an older one, to the schema of this program.

`schema.sql` is what a new file begins with. Each later change of it comes with one more migration
here, which brings older files to the same place; a test compares the two.
"""

import sqlite3

from carstore.sqlite.statements import schema_text, split

SCHEMA = 1
"""The number of the newest migration; kept in the file as `user_version`."""

APPLICATION_ID = 0x63617273
"""`cars`: marks the file as ours."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to `SCHEMA`. The caller holds the write transaction and commits it."""
    # Imported here, since it costs more than opening a file that needs nothing done.
    from sqlite_utils import Database, Migrations

    migrations = Migrations("carstore")

    @migrations(name="1")
    def first_schema(db: Database) -> None:
        for statement in split(schema_text()):
            db.conn.execute(statement)

    migrations.apply(Database(connection, recursive_triggers=False))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
