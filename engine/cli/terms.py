"""The terms of a run on the command line: the rules that judge it, and what it may take.

What is wrong with them is told before the file is opened, so nothing has been recorded then.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import field, frozen

from carstore.errors import NotFound
from carstore.names import RunId
from carstore.python_file import import_failure, import_file
from engine.cli.errors import BadUsage
from engine.cli.options import command_line
from engine.ir import MAX_TIMEOUT_MS
from engine.policies import InvalidPolicy, Policy
from engine.policy_file import load_permissions, load_policies
from engine.rules.budget import MAX_COUNT, Budget
from engine.rules.capabilities import as_policy
from engine.rules.money import InvalidBudget

__all__ = [
    "Given",
    "Terms",
    "code_policies",
    "code_policies_option",
    "read_terms",
    "terms_options",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_COUNT = click.IntRange(0, MAX_COUNT)

_RULES = "A file of rules: FILE.toml, or FILE.py with functions marked @policy; repeatable."
_CODE = "The rules in Python (FILE.py) under which the runs were begun; repeatable."

_LIMITS = (
    ("--max-actions", "N", "Stop after so many actions."),
    ("--max-tool-calls", "N", "Stop after so many calls, repeated ones included."),
    ("--max-duration-ms", "N", "Stop once the actions have taken so many milliseconds."),
)


def _policies_option(text: str) -> Callable[[_Command], _Command]:
    return click.option("--policies", metavar="FILE", multiple=True, help=text)


def terms_options(command: _Command) -> _Command:
    """All options that `read_terms` reads, in the order of `--help`."""
    options = [
        _policies_option(_RULES),
        click.option("--permissions", metavar="FILE", help="What the plan may use at all."),
        *[
            click.option(name, type=_COUNT, metavar=metavar, help=text)
            for name, metavar, text in _LIMITS
        ],
        click.option(
            "--budget",
            "budgets",
            metavar="UNIT:AMOUNT",
            multiple=True,
            help="What the run may spend, as USD:5.00; repeatable.",
        ),
        click.option("--draw-on", metavar="NAME", help="The budget of which that is a part."),
        click.option(
            "--timeout",
            type=float,
            metavar="SECONDS",
            help="Begin nothing any more after so long, waits included.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def code_policies_option(command: _Command) -> _Command:
    """`--policies FILE.py`, as `policies`, for runs that have begun; to be read with
    `code_policies`."""
    return _policies_option(_CODE)(command)


@frozen(kw_only=True)
class Terms:
    """What binds a run that begins, as the arguments of `Runtime` and `Runtime.execute`."""

    policies: tuple[Policy, ...]
    """The rules of all files; permissions are one of them."""
    budget: Budget | None
    timeout_secs: float | None


def read_terms(
    *,
    policies: Sequence[str],
    permissions: str | None,
    max_actions: int | None,
    max_tool_calls: int | None,
    max_duration_ms: int | None,
    budgets: Sequence[str],
    draw_on: str | None,
    timeout: float | None,
) -> Terms:
    """What the options of `terms_options` say.

    Raises:
        BadUsage: an amount, a unit, a name or a duration cannot be used.
        NotFound: there is no such file.
        InvalidPolicy: a file cannot be used, or two say different things under one name.
    """
    most = MAX_TIMEOUT_MS // 1000
    if timeout is not None and not 0 < timeout <= most:
        raise BadUsage("--timeout", f"{timeout!r} is not above 0, or above {most:,} seconds")
    limits = {
        "max_actions": max_actions,
        "max_tool_calls": max_tool_calls,
        "max_duration_ms": max_duration_ms,
    }
    budget = _budget(_amounts(budgets), draw_on, limits)
    rules = _Rules()
    for name in policies:
        rules.add(_load(name), name)
    if permissions is not None:
        rules.add([as_policy(load_permissions(permissions))], permissions)
    return Terms(policies=tuple(rules.found.values()), budget=budget, timeout_secs=timeout)


def code_policies(files: Sequence[str]) -> tuple[Policy, ...]:
    """The rules of Python files, for runs that were begun under them.

    Raises:
        BadUsage: a file is not one of Python. Those rules stand in the log, and a run goes on under
            the ones that it was begun under: another file would not be heard.
        NotFound, InvalidPolicy: as `read_terms`.
    """
    rules = _Rules()
    for name in files:
        if not _is_python(name):
            raise BadUsage(
                "--policies",
                f"{name}: a run goes on under the rules it was begun under, which were recorded. "
                "Name only what is code: --policies FILE.py",
            )
        rules.add(_load(name), name)
    return tuple(rules.found.values())


@frozen
class Given:
    """Where the code comes from that a run needs, and that is named again when it goes on."""

    tools: str | None = None
    policies: Sequence[str] = ()
    """Files of rules; of these, only the ones in Python are named again."""
    mcp: Sequence[str] = ()

    def options(self) -> list[str]:
        """The options that name it."""
        found = ["--tools", self.tools] if self.tools else []
        for server in self.mcp:
            found += ["--mcp", server]
        for name in self.policies:
            found += ["--policies", name] if _is_python(name) else []
        return found

    def resume_command(self, database: str, *runs: RunId) -> str:
        """The command that goes on with runs."""
        return command_line("resume", database, *runs, *self.options())


# --- rules ---


@frozen
class _Rules:
    """Rules of several files, each once."""

    found: dict[str, Policy] = field(factory=dict)
    _sources: dict[str, str] = field(factory=dict)

    def add(self, policies: Iterable[Policy], source: str) -> None:
        """Take in the rules of one file.

        Raises:
            InvalidPolicy: another one says something else under the same name.
        """
        for one in policies:
            known = self.found.setdefault(one.name, one)
            first = self._sources.setdefault(one.name, source)
            if (known.digest, known.rule) != (one.digest, one.rule):
                reason = f"says something else about {one.name!r} than {first}; leave one of them"
                raise InvalidPolicy(source, "", reason)


def _is_python(name: str) -> bool:
    return name.lower().endswith(".py")


def _load(name: str) -> tuple[Policy, ...]:
    return _in_python(name) if _is_python(name) else load_policies(name)


def _in_python(source: str) -> tuple[Policy, ...]:
    """Every policy at the top level of a Python file."""
    path = Path(source)
    if not path.exists():
        raise NotFound("file", source)
    if not path.is_file():
        raise InvalidPolicy(source, "", "is no file")
    try:
        module = import_file(path)
    except (Exception, SystemExit) as error:
        raise InvalidPolicy(source, "", import_failure(error, __file__)) from error
    found = [value for value in vars(module).values() if isinstance(value, Policy)]
    if not found:
        reason = "no policies in it. Write @policy above its functions"
        raise InvalidPolicy(source, "", reason)
    rules = _Rules()
    rules.add(found, source)
    return tuple(rules.found.values())


# --- budget ---


def _amounts(given: Sequence[str]) -> dict[str, str]:
    """Unit -> amount as it was written.

    Raises:
        BadUsage: not of the form UNIT:AMOUNT, or a unit twice.
    """
    found: dict[str, str] = {}
    for one in given:
        unit, colon, amount = one.rpartition(":")
        if not (colon and unit and amount):
            raise BadUsage("--budget", f"write UNIT:AMOUNT, such as USD:5.00, not {one!r:.80}")
        if unit in found:
            raise BadUsage("--budget", f"{unit!r:.80} is limited twice; give it once")
        found[unit] = amount
    return found


def _budget(
    amounts: dict[str, str], draw_on: str | None, limits: dict[str, int | None]
) -> Budget | None:
    """What the run may take; None if nothing limits it."""
    try:
        budget = Budget(costs=amounts, parent=draw_on, **limits)
    except InvalidBudget as error:
        option = "--draw-on" if error.path == "parent" else "--budget"
        reason = error.reason if error.path == "parent" else error.message
        raise BadUsage(option, reason.removeprefix("costs.")) from None
    return None if budget.to_json() is None else budget
