"""The threads that plain functions run in: as many as there are calls, none of them waited for.

A pool of fixed size would let calls queue, and a call that waits for a thread is indistinguishable
from one that runs: its timeout goes by, and it seems to be in doubt although it never began. So a
call always gets a thread at once, an idle one or a new one; how many calls there are at a time is
bounded by the runs. The threads are daemons: one that is stuck does not keep the program alive.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeVar

from attrs import define, field

__all__ = ["Threads"]

IDLE_SECONDS = 30.0
"""How long a thread waits for another call before it ends."""

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Executor):
    """An executor that never lets a call wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call `fn` in a thread now."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whoever waits for the future is told
                future.set_exception(error)

        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self)
            threading.Thread(target=worker.run, name="carstore tool", daemon=True).start()
        worker.calls.put(call)
        return future

    def rest(self, worker: "_Worker") -> None:
        """Take back a thread that is done."""
        with self._lock:
            self._idle.append(worker)

    def retire(self, worker: "_Worker") -> bool:
        """Whether `worker` may end: nobody has given it a call meanwhile."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            return True


@define(eq=False)
class _Worker:
    threads: Threads
    calls: "SimpleQueue[Callable[[], None]]" = field(factory=SimpleQueue)

    def run(self) -> None:
        while True:
            try:
                call = self.calls.get(timeout=IDLE_SECONDS)
            except Empty:
                if self.threads.retire(self):
                    return
                continue
            call()
            del call  # nothing of the call is kept while idle
            self.threads.rest(self)
