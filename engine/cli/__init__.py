"""The command line: one file per group of verbs, each imported when it is used."""

from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """The program `carstore`. Ends the process; `docs/cli.md` lists the exit codes."""
    from engine.cli.app import app
    from engine.cli.leaving import leave, prepare

    prepare()
    try:
        app.main()
    except SystemExit as ending:
        code = ending.code
    leave(code if isinstance(code, int) else 0)
