"""Connections that fail when a test wants them to."""

import sqlite3
from typing import Any

from carstore.sqlite import database


class Failing(database.JobConnection):
    """Raises `fault` at the next statement that begins with `at`."""

    at = ""
    fault: sqlite3.Error | None = None

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        self._fail(sql)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any) -> Any:
        self._fail(sql)
        return super().executemany(sql, parameters)

    def commit(self) -> None:
        self._fail("COMMIT")
        super().commit()

    @staticmethod
    def _fail(sql: str) -> None:
        if Failing.fault is not None and sql.lstrip().startswith(Failing.at):
            raise Failing.fault


def fault(name: str, text: str = "disk I/O error") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error
