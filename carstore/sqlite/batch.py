"""Batches of appends, each as one transaction, on the writer's thread.

A batch is done under one lock and one sync. Between two batches other processes may write, which
`PRAGMA data_version` tells; as long as nobody did, what the last transaction knew still holds and
is not read again.

Should a trigger of the file refuse a row, `Transaction` and the schema disagree, or somebody went
around us. Then the batch is done again with a SAVEPOINT for each append, so that only the guilty
one fails. Any other error ends the whole batch: SQLite has rolled back, and going on would commit
the rest one by one.
"""

import sqlite3
from collections.abc import Sequence

from carstore.clock import Clock
from carstore.errors import CarstoreError, CorruptLog
from carstore.sqlite.prepare import Submission
from carstore.sqlite.statements import SQL
from carstore.sqlite.transaction import Transaction, begin

MAX_REMEMBERED = 20_000
"""Stream heads, key heads and leases kept between batches: about 5 MB."""


class BatchWriter:
    """Commits batches on one connection, always on the same thread."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._last: Transaction | None = None
        self._data_version = -1

    def commit(self, connection: sqlite3.Connection, batch: Sequence[Submission]) -> None:
        """Judge and write `batch`, and leave the outcome on each submission.

        Raises:
            sqlite3.Error, SchemaTooNew: the whole batch failed and nothing of it was written.
        """
        try:
            self._run(connection, batch, one_by_one=False)
        except sqlite3.IntegrityError:
            for submission in batch:
                submission.outcome = None
            self._run(connection, batch, one_by_one=True)

    def _run(
        self, connection: sqlite3.Connection, batch: Sequence[Submission], *, one_by_one: bool
    ) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            transaction = self._begin(connection)
            transaction.look_up(batch)
            for submission in batch:
                try:
                    transaction.judge(submission)
                except CarstoreError as refused:
                    submission.outcome = refused
                    continue
                if one_by_one:
                    transaction = self._append_alone(transaction, submission, batch)
                else:
                    transaction.plan(submission)
            transaction.write()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._last = transaction

    def _begin(self, connection: sqlite3.Connection) -> Transaction:
        """What is known: all that the last transaction knew, unless somebody has written since."""
        last, self._last = self._last, None  # to be had again when this one is committed
        (data_version,) = connection.execute(SQL["data_version"]).fetchone()
        alone, self._data_version = data_version == self._data_version, data_version
        if last is None or not alone or last.remembered > MAX_REMEMBERED:
            return begin(connection, self._path, self._clock)
        last.now = self._clock.now()
        return last

    def _append_alone(
        self, transaction: Transaction, submission: Submission, batch: Sequence[Submission]
    ) -> Transaction:
        """Write one append of a batch by itself; if a trigger refuses it, only this one fails."""
        connection = transaction.connection
        connection.execute("SAVEPOINT append")
        try:
            transaction.plan(submission)
            transaction.write()
        except sqlite3.IntegrityError as error:
            connection.execute("ROLLBACK TO append")
            connection.execute("RELEASE append")
            submission.outcome = CorruptLog(self._path, f"the file refused an append: {error}")
            again = begin(connection, self._path, self._clock)
            again.look_up(batch)
            return again
        connection.execute("RELEASE append")
        return transaction
