"""What several commands take, and how they open the file."""

import shlex
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

import click

from carstore import Store, connect
from carstore.errors import NotFound
from carstore.events import KINDS, ProposalReceived
from carstore.names import RunId
from engine.cli.errors import BadUsage
from engine.problems import suggestion

if TYPE_CHECKING:
    from projections import View

__all__ = [
    "COUNT",
    "POSITION",
    "all_views",
    "at_option",
    "check_at",
    "check_kinds",
    "check_run",
    "command_line",
    "database",
    "json_option",
    "kind_option",
    "reading",
    "tools",
    "views_option",
]

POSITION = click.IntRange(0, 2**63 - 1)
"""A place in a log. SQLite has no larger integers."""

COUNT = click.IntRange(1, 2**63 - 2)
"""How many of something; one more is looked for, to know whether there are more."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def database(command: _Command) -> _Command:
    """The argument that comes first."""
    return click.argument("database", metavar="DB", type=click.Path())(command)


def json_option(command: _Command) -> _Command:
    """`--json`; also looked for when an error is told."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def at_option(command: _Command) -> _Command:
    """`--at N`; to be checked with `check_at`."""
    return click.option(
        "--at",
        type=POSITION,
        metavar="N",
        help="As of position N of the log, that event included.",
    )(command)


def views_option(command: _Command) -> _Command:
    """`--views FILE.py`; to be read with `all_views`."""
    return click.option(
        "--views",
        "views_file",
        metavar="FILE.py",
        help="Also the views that are written in this Python file.",
    )(command)


def all_views(views_file: str | None) -> "tuple[View[Any, Any], ...]":
    """The views of carstore, and those of a file.

    Raises:
        NotFound, InvalidView: the file cannot be used.
    """
    from projections import VIEWS, load_views

    return VIEWS if views_file is None else (*VIEWS, *load_views(views_file))


def kind_option(command: _Command) -> _Command:
    """`--kind KIND`, as `kinds`; to be checked with `check_kinds`."""
    return click.option(
        "--kind", "kinds", metavar="KIND", multiple=True, help="Only this kind; repeatable."
    )(command)


def tools(command: _Command) -> _Command:
    """`--tools FILE_OR_MODULE`."""
    return click.option(
        "--tools",
        metavar="FILE_OR_MODULE",
        help="Where the tools are: a FILE.py, or a module that Python can import.",
    )(command)


def reading(path: str) -> connect:
    """Open a file that must be there, in a way that needs no right to write."""
    return connect(path, create=False, readonly=True, instance="carstore command line")


async def check_at(store: Store, at: int | None) -> None:
    """Refuse a position that the log does not have.

    Raises:
        NotFound: saying which is the last one.
    """
    if at is None:
        return
    head = (await store.log.head()).position
    if at > head:
        raise NotFound("position", str(at), f"The log ends at {head}.")


async def check_run(store: Store, run_id: RunId) -> None:
    """Refuse a run that the log does not have.

    Raises:
        NotFound: saying what lists them.
    """
    async for _ in store.log.read(run=run_id, kinds=[ProposalReceived.kind]):
        return
    raise NotFound("run", run_id, f"{command_line('runs', store.path)} lists them.")


async def check_kinds(store: Store, kinds: Collection[str]) -> None:
    """Refuse a kind that neither this program nor the file has: it is mistyped.

    Raises:
        BadUsage: naming the nearest one.
    """
    for kind in kinds:
        if kind not in KINDS and not await _has_kind(store, kind):
            near = suggestion(kind, KINDS)
            raise BadUsage("--kind", f"there is no kind of event {kind!r:.100}{near}")


async def _has_kind(store: Store, kind: str) -> bool:
    """Whether a newer carstore has written such an event."""
    async for _ in store.log.read(kinds=[kind]):
        return True
    return False


def command_line(*words: str | None) -> str:
    """A command that can be pasted into a shell; words that are None are left out."""
    return shlex.join(["carstore", *[word for word in words if word is not None]])
