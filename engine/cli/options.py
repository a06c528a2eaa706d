"""What several commands take, and how they open the file."""

import shlex
from collections.abc import Callable
from typing import Any, TypeVar

import click

from carstore import Store, connect
from carstore.errors import NotFound

__all__ = ["at_option", "check_at", "command_line", "database", "json_option", "reading", "tools"]

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
        type=click.IntRange(min=0),
        metavar="N",
        help="As of position N of the log, that event included.",
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


def command_line(*words: str | None) -> str:
    """A command that can be pasted into a shell; words that are None are left out."""
    return shlex.join(["carstore", *[word for word in words if word is not None]])
