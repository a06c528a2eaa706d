"""What happened: an append-only log in one SQLite file, and leases on top of it."""

from carstore.clock import Clock, ManualClock, SystemClock
from carstore.connect import connect
from carstore.errors import CarstoreError
from carstore.log import Appended, Entry, Expect, Fence, Head, LeaseIs, Log, Recorded, StateRead
from carstore.store import Store

__version__ = "0.2.0"

__all__ = [
    "Appended",
    "CarstoreError",
    "Clock",
    "Entry",
    "Expect",
    "Fence",
    "Head",
    "LeaseIs",
    "Log",
    "ManualClock",
    "Recorded",
    "StateRead",
    "Store",
    "SystemClock",
    "__version__",
    "connect",
]
