"""The agent loop: one proposal after the other, until whoever proposes says that the goal is met.

A pursuit is a stream of its own, `pursuit/ID`, under the lease of the same name: it holds the goal
with its limits, what the proposing cost, and the end. Its steps are runs, and step `n` is the run
`ID-sn`. So a proposal is an event before anything of it is done, and there is one for each step:
whoever goes on after a crash finds the run, and goes on with it instead of asking again.

What a pursuit may spend is a budget like any other, `pursuit/ID`, of which the budgets of its runs
are a part. What a call reserves is therefore held back from the pursuit as well, and the proposing
is taken from it too. The calls of runs that have a budget are recorded before they are made.
"""

from collections import Counter
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import define, evolve, field, frozen

from carstore import Entry, Expect, canonical
from carstore import events as e
from carstore.blobs import references
from carstore.errors import CarstoreError, LeaseHeld, LeaseLost, StaleFence, VersionConflict
from carstore.leases import HeldLease, release
from carstore.log import Fence
from carstore.names import Json, LeaseName, RunId, StreamName, budget_stream, pursuit_stream
from engine.accounts import Account
from engine.asking import Done, Left, Propose, Said, Situation, ask
from engine.errors import RunExists
from engine.ir import Proposal, RunResult, RunStatus
from engine.ledger import Ledger, opening
