"""The command line: one file per group of verbs, each imported when it is used."""

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """The program `carstore`. Ends the process; `docs/cli.md` lists the exit codes."""
    try:
        from engine.cli.app import app
        from engine.cli.leaving import leave, prepare

        prepare()
        app.main()
    except SystemExit as ending:
        code = ending.code
    except KeyboardInterrupt:  # before the command was there to say so itself
        sys.stderr.write("Error: interrupted\n")
        sys.exit(130)
    leave(code if isinstance(code, int) else 0)
