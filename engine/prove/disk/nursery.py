"""Children that live on a disk which is watched and which can fail."""

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from attrs import define, frozen

import engine
from engine.prove.broken import in_force
from engine.prove.disk.shim import Disk, compiled, why_not
from engine.prove.family import ProofFailed
from engine.prove.proof import Outcome, skipped

__all__ = ["LIFE_SECONDS", "Ended", "Life", "Nursery", "on_disk", "only_those"]

LIFE_SECONDS = 60.0
"""How long a life may take; none takes more than a few seconds unless it hangs."""

_ABOVE = str(Path(engine.__file__).resolve().parents[1])
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 1 << 30
"""What must be free in memory for proofs to work there."""
_TOLD_BYTES = 2_000


@frozen(kw_only=True)
class Life:
    """What a child is to do."""

    name: str
    """A function of `engine.prove.disk.lives`."""
    arguments: dict[str, Any]
    disk: Disk | None = None


@frozen
class Ended:
    """How a life ended."""

    code: int | None
    """Exit code, negative for a signal; `None` if it hung and was ended."""
    report: Any = None
    """What the life returned."""

    @property
    def killed(self) -> bool:
        """Did it die as the disk told it?"""
        return self.code == -9


@define
class Nursery:
    """Bears children with the library loaded.

    Args:
        folder: for their reports and for what they print.
    """

    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    def live(self, *lives: Life, seconds: float = LIFE_SECONDS) -> list[Ended]:
        """Let them all live at once, and wait for their ends.

        Raises:
            ProofFailed: one failed by itself; being killed and hanging are for the caller to judge.
        """
        reports = [self.folder / f"report {n}.json" for n in range(len(lives))]
        requests = [
            self._request(life, report) for life, report in zip(lives, reports, strict=True)
        ]
        codes = self._ask({"lives": requests, "seconds": seconds}, seconds * len(lives) + 30)
        ended = []
        for code, report in zip(codes, reports, strict=True):
            if code not in (0, -9, None):
                raise ProofFailed(
                    f"a process failed by itself with exit code {code}.{self._said()}"
                )
            ended.append(Ended(code, json.loads(report.read_bytes()) if code == 0 else None))
        return ended

    def reaches_sqlite(self) -> bool:
        """Does the library see what SQLite does in a child?"""
        probed = self.folder / "probe"
        probed.mkdir()
        disk = Disk(watched=probed)
        arguments = {"database": str(probed / "probe.db")}
        (ended,) = self.live(Life(name="probe", arguments=arguments, disk=disk))
        return bool(ended.report)

    def _request(self, life: Life, report: Path) -> dict[str, Any]:
        report.unlink(missing_ok=True)
        return {
            "life": life.name,
            "arguments": life.arguments,
            "disk": None if life.disk is None else life.disk.settings(),
            "broken": in_force(),
            "output": str(self.output),
            "report": str(report),
        }

    def _ask(self, request: dict[str, Any], seconds: float) -> list[int | None]:
        cradle = _cradle()
        answer = ""
        try:
            answer = cradle.ask(json.dumps(request), seconds)
        finally:
            if not answer:  # it died, or answers to nobody when it does
                cradle.close()
        if not answer:
            raise ProofFailed(f"the process that bears children does not answer.{self._said()}")
        codes: list[int | None] = json.loads(answer)
        return codes

    def _said(self) -> str:
        if not self.output.exists():
            return ""
        text = self.output.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip()
        return f" Its last words: {text}" if text else ""


@define
class _Cradle:
    """The process of `cradle`, one for all nurseries: that it has imported everything is what takes
    time. It ends when its input does, so at the latest with this process."""

    process: "subprocess.Popen[str]"

    def ask(self, request: str, seconds: float) -> str:
        """Its answer; nothing if there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return ""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline() if ready else ""

    def close(self) -> None:
        _cradle.cache_clear()
        atexit.unregister(self.close)
        self.process.kill()
        self.process.communicate()


@cache
def _cradle() -> _Cradle:
    library = compiled()
    assert isinstance(library, Path)
    paths = [_ABOVE, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    made = _Cradle(
        subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.prove.disk.cradle"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
    )
    atexit.register(made.close)
    return made


def on_disk(place: Path, prove: Callable[[Path, Nursery], Outcome]) -> Outcome:
    """Run `prove(folder, nursery)`, or say why that cannot be done on this machine. The folder is
    left in `place` if a promise was found broken."""
    reason = why_not()
    if reason is not None:
        return skipped(reason)
    with _scratch(place) as folder:
        nursery = Nursery(folder)
        if not nursery.reaches_sqlite():
            return skipped(
                "needs a SQLite that calls the C library: LD_PRELOAD does not reach that of Python"
            )
        outcome = prove(folder, nursery)
        if outcome.broken and folder != place.resolve():
            shutil.copytree(folder, place, dirs_exist_ok=True)
        return outcome


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A folder in memory if there is room, else `place`: what survives here is decided by the
    proof, so a real disk adds nothing but time."""
    try:
        fits = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES
    except FileNotFoundError:
        fits = False
    if not fits:
        yield place.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="carstore-proof-", dir=_MEMORY) as folder:
        yield Path(folder).resolve()


def only_those(seen: Sequence[str], most: int = 20) -> list[str]:
    """The first of many sentences, each once."""
    return list(dict.fromkeys(seen))[:most]
