"""What can go wrong with a command, and how it is told: a message, or JSON, and an exit code."""

import os
import traceback
from typing import ClassVar

import click
from attrs import define, frozen

from carstore.errors import CarstoreError
from engine.cli.exits import Exit
from engine.cli.screen import print_json, say

__all__ = ["BAD_INPUT", "FAILED", "BadUsage", "Interrupted", "report"]

DEBUG_VARIABLE = "CARSTORE_DEBUG"
"""If set and not empty, every error is shown with the place in the program where it arose."""

BAD_INPUT = frozenset(
    {
        "already_there",
        "context_misused",
        "cycle",
        "invalid_budget",
        "invalid_event",
        "invalid_export",
        "invalid_json",
        "invalid_policy",
        "invalid_proposal",
        "invalid_run_id",
        "invalid_search",
        "invalid_selection",
        "invalid_tool",
        "invalid_view",
        "no_approval",
        "no_doubt",
        "not_a_database",
        "not_found",
        "policies_changed",
        "run_exists",
        "run_over",
        "schedule_missing",
        "schema_too_new",
        "tools_changed",
        "tools_not_found",
        "unknown_event",
        "unresolved_reference",
        "usage",
    }
)
"""Codes of errors that end a command with exit code 2."""

FAILED = frozenset(
    {
        "budget_exhausted",
        "busy",
        "cannot_open",
        "capability_denied",
        "closed",
        "context_closed",
        "copy_failed",
        "corrupt",
        "cursor_refused",
        "demo_failed",
        "disk_full",
        "internal",
        "invalid_executor",
        "io_error",
        "lease_held",
        "lease_lost",
        "mcp_bad_result",
        "mcp_not_connected",
        "mcp_not_installed",
        "mcp_refused",
        "mcp_server_gone",
        "mcp_server_lost",
        "mcp_tool_failed",
        "no_full_text",
        "no_tool_executor",
        "proof_failed",
        "pursuit_exists",
        "pursuit_owned",
        "read_only",
        "rebuild_overtaken",
        "run_owned",
        "stale_fence",
        "state_conflict",
        "tool_cancelled",
        "tool_killed",
        "tool_out_of_memory",
        "tool_output_invalid",
        "tool_output_too_large",
        "tool_process_ended",
        "tool_process_not_started",
        "tool_raised",
        "tool_stopped",
        "transaction_ended",
        "version_conflict",
        "view_damaged",
        "view_failed",
    }
)
"""Codes of errors that end a command with exit code 1."""


@define(slots=False, eq=False)
class BadUsage(CarstoreError):
    """Arguments that do not fit together, or what they name cannot be used."""

    code: ClassVar[str] = "usage"
    path: str
    """The argument or option at fault."""
    reason: str

    @property
    def message(self) -> str:
        return f"{self.path}: {self.reason}"

    @property
    def where(self) -> str | None:
        return self.path


@define(slots=False, eq=False)
class Interrupted(CarstoreError):
    """The command was stopped by Ctrl-C or SIGTERM."""

    code: ClassVar[str] = "interrupted"
    run_id: str | None = None
    reason: str = "interrupted"

    @property
    def message(self) -> str:
        return self.reason

    @property
    def where(self) -> str | None:
        return self.run_id


@frozen
class _Told:
    code: str
    path: str | None
    message: str
    exit: Exit


def report(error: Exception, *, as_json: bool) -> int:
    """Tell an error: for programs on standard output, for people on standard error.

    The notes of the error, which say what to do next, go to standard error in both cases.
    """
    told = _told(error)
    if as_json:
        print_json({"error": {"code": told.code, "path": told.path, "message": told.message}})
    else:
        _tell_people(error, told)
    for note in getattr(error, "__notes__", ()):
        say(note)
    if told.code == "internal" or os.environ.get(DEBUG_VARIABLE):
        say("".join(traceback.format_exception(error)).rstrip())
    return told.exit


def _told(error: Exception) -> _Told:
    if isinstance(error, Interrupted | click.Abort):
        path = error.where if isinstance(error, Interrupted) else None
        message = error.message if isinstance(error, Interrupted) else "interrupted"
        return _Told("interrupted", path, message, Exit.INTERRUPTED)
    if isinstance(error, CarstoreError):
        bad = error.code in BAD_INPUT
        return _Told(error.code, error.where, error.message, Exit.BAD_INPUT if bad else Exit.FAILED)
    if isinstance(error, click.ClickException):
        return _Told("usage", _parameter(error), error.format_message(), Exit.BAD_INPUT)
    message = f"carstore failed in a way that was not foreseen: {type(error).__name__}: {error}"
    return _Told("internal", None, message, Exit.FAILED)


def _tell_people(error: Exception, told: _Told) -> None:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and isinstance(context, click.Context):
        if type(error).__name__ == "NoArgsIsHelpError":
            say(context.get_help())
            return
        say(context.get_usage())
        say(f"Try '{context.command_path} --help' for help.")
        say("")
    say(f"Error: {told.message}")


def _parameter(error: click.ClickException) -> str | None:
    """The option or argument that a usage error is about, as people write it."""
    name = getattr(error, "option_name", None)
    if name is not None:
        return str(name)
    parameter = getattr(error, "param", None)
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    if isinstance(parameter, click.Argument):
        return parameter.metavar or parameter.name
    return None
