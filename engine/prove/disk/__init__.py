"""Proofs that make the disk fail: death at a chosen write, torn writes, power loss, a full disk,
and writes and syncs that fail. A small C library (`shim.c`) stands between SQLite and the disk;
where it cannot be compiled or loaded, each of these proofs says so and is skipped."""

from engine.prove.disk.faults import FAILING_DISK
from engine.prove.disk.full import FULL_DISK
from engine.prove.disk.kill import NTH_KILLED, TORN_WRITES
from engine.prove.disk.power import POWER_LOSS
from engine.prove.proof import Proof

__all__ = ["DISK_PROOFS"]

DISK_PROOFS: tuple[Proof, ...] = (NTH_KILLED, TORN_WRITES, POWER_LOSS, FULL_DISK, FAILING_DISK)
