"""The processes that a proof starts, stops and kills.

They come from a server that has everything imported, so that a life costs milliseconds. What they
print goes to a file, whose end is told when one of them fails by itself. A family that is left
leaves nobody behind.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from attrs import define, field

import engine
from carstore.errors import CarstoreError

__all__ = ["ABOVE", "Child", "Family", "ProofFailed", "kill", "wait_until"]

PATIENCE_SECONDS = 120
"""How long a process that nobody harms may take; it only ends what hangs."""

ABOVE = str(Path(engine.__file__).resolve().parents[1])
"""Where this very package was imported from: never a namesake in the current folder."""

_PRELOADED = ["engine.prove.catalog", "engine.prove.plan_child"]

_TOLD_BYTES = 2_000
"""Of what a process printed before it failed."""

Child = ForkServerProcess


@define(slots=False, eq=False)
class ProofFailed(CarstoreError):
    """A proof could not be carried out: one of its processes failed by itself, or hung."""

    code: ClassVar[str] = "proof_failed"
    reason: str

    @property
    def message(self) -> str:
        return f"the proof could not be carried out: {self.reason}"


@define
class Family:
    """Processes of one proof. Leaving the `with` block kills those that are alive.

    Args:
        folder: where their output is kept.
    """

    folder: Path
    children: list[Child] = field(factory=list)

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    def born(self, life: Callable[..., None], *arguments: Any) -> Child:
        """Start a process that calls `life(*arguments)`, a function of a module."""
        from engine.prove.broken import in_force

        _serve()
        context = multiprocessing.get_context("forkserver")
        given = (life, arguments, str(self.output), in_force())
        child = context.Process(target=_live, args=given)
        child.start()
        self.children = [one for one in self.children if one.is_alive()]
        self.children.append(child)
        return child

    def finish(
        self, child: Child, seconds: float = PATIENCE_SECONDS, fine: Sequence[int] = ()
    ) -> None:
        """Wait for its end.

        Args:
            fine: exit codes that are as good as 0.

        Raises:
            ProofFailed: it took more than `seconds`, or failed.
        """
        child.join(seconds)
        if child.exitcode is None:
            kill(child)
            raise ProofFailed(f"a process that nobody harmed took more than {seconds} s")
        self.check(child, *fine)

    def check(self, child: Child, *fine: int) -> None:
        """Complain of a process that ended by itself and not well.

        Args:
            fine: exit codes that are as good as 0.

        Raises:
            ProofFailed
        """
        if child.exitcode not in (None, 0, *fine):
            raise ProofFailed(
                f"a process failed by itself with exit code {child.exitcode}.{self._said()}"
            )

    def _said(self) -> str:
        if not self.output.exists():
            return ""
        text = self.output.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip()
        return f" Its last words: {text}" if text else ""

    def __enter__(self) -> "Family":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self.children:
            if child.is_alive():
                kill(child)


def kill(child: Child) -> None:
    """SIGKILL, and wait until it is gone. Works on a stopped process too."""
    child.kill()
    child.join()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Look every millisecond.

    Raises:
        ProofFailed: it took more than `seconds` until `what`.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise ProofFailed(f"waited {seconds} s, and not yet: {what}")
        time.sleep(0.001)


def _serve() -> None:
    """Start the server, if it does not run, so that it imports what this process has imported."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([ABOVE, *filter(None, [before])])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _live(
    life: Callable[..., None], arguments: tuple[Any, ...], output: str, broken: str | None
) -> None:
    number = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(number, stream)
    os.close(number)
    if broken is not None:
        from engine.prove.broken import BREAKAGES

        BREAKAGES[broken].apply()
    life(*arguments)
