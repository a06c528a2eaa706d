"""Who holds a lease, and whether that process is provably gone.

A lease can be taken over at once only from a holder that cannot possibly act any more. That can be
proven on one machine: in the same boot and process-id namespace, if no process has the id or the
one that has it began at another time; or if the machine has booted since. Everything else, another
machine or another container, has to wait until the lease expires.
"""

import os
import socket
import subprocess
import sys
import uuid
from functools import cache
from pathlib import Path
from typing import Protocol

from attrs import asdict, fields, frozen

from carstore.errors import InvalidEvent
from carstore.names import Json


@frozen(kw_only=True)
class Holder:
    """A process that holds leases. All fields but the first two say where to look for it."""

    instance: str
    """A name for people, chosen by the embedding program."""
    incarnation: str
    """Random and new for each opened store: two of one name are two holders."""
    machine: str
    boot: str
    host: str
    pid: int
    pid_namespace: str
    started: str
    """When the process began, in whatever unit the system counts."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> "Holder":
        """The holder that `to_json` gave, also one of a newer carstore, which may say more.

        Raises:
            InvalidEvent: if a field is missing or of another type.
        """
        given = data if isinstance(data, dict) else {}
        wrong = [one.name for one in fields(cls) if type(given.get(one.name)) is not one.type]
        if wrong:
            reason = f"{', '.join(wrong)}: missing, or of another type"
            raise InvalidEvent("lease_granted", "$.holder", reason)
        return cls(**{one.name: given[one.name] for one in fields(cls)})


class Processes(Protocol):
    """What can be known about processes; replaced in tests."""

    def current(self, instance: str) -> Holder:
        """A new incarnation of this process."""
        ...

    def is_gone(self, holder: Holder) -> bool:
        """Whether `holder` provably cannot act any more."""
        ...


class SystemProcesses:
    """This machine's processes."""

    def current(self, instance: str) -> Holder:
        return Holder(
            instance=instance,
            incarnation=uuid.uuid4().hex,
            machine=_machine(),
            boot=_boot(),
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_namespace=_pid_namespace(),
            started=_started(os.getpid()) or "",
        )

    def is_gone(self, holder: Holder) -> bool:
        if not holder.machine or holder.machine != _machine():
            return False
        if not holder.boot or not _boot():
            return False
        if holder.boot != _boot():
            return True
        if holder.pid_namespace != _pid_namespace():
            return False
        started = _started(holder.pid)
        if started is None:
            return True
        return bool(started and holder.started) and started != holder.started


@cache
def _machine() -> str:
    for place in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        text = _text_of(place)
        if text:
            return text
    # The address of a network card; random, and so proving nothing, where there is none.
    return f"{uuid.getnode():012x}"


@cache
def _boot() -> str:
    if sys.platform == "darwin":
        return _output_of("sysctl", "-n", "kern.boottime")
    return _text_of("/proc/sys/kernel/random/boot_id")


@cache
def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When the process began, "" if that cannot be told; None if there is no such process, or only
    its unburied rest."""
    if sys.platform == "darwin":
        stat = _output_of("ps", "-o", "lstart=", "-p", str(pid))
        return stat or ("" if _exists(pid) else None)
    stat = _text_of(f"/proc/{pid}/stat")
    if not stat:
        return "" if _exists(pid) else None
    # The name of the program stands in parentheses and may hold anything, also more of them.
    fields = stat.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()
