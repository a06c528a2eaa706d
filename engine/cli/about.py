"""`carstore version` and `carstore completion`."""

import platform
import sqlite3

import click

from carstore.sqlite.migrations import SCHEMA
from engine.cli.options import json_option
from engine.cli.screen import print_json, write, write_raw

__all__ = ["completion", "version"]


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version of carstore, and of what it stands on."""
    found = {
        "carstore": _installed(),
        "schema": SCHEMA,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    if as_json:
        print_json(found)
    else:
        write(
            f"carstore {found['carstore']} (schema {found['schema']}, "
            f"Python {found['python']}, SQLite {found['sqlite']})"
        )


def _installed() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("carstore")
    except PackageNotFoundError:  # run from its sources
        return "not installed"


@click.command()
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that lets a shell complete commands, options and files.

    \b
    bash: carstore completion bash > ~/.local/share/bash-completion/completions/carstore
    zsh:  carstore completion zsh > "${fpath[1]}/_carstore"
    fish: carstore completion fish > ~/.config/fish/completions/carstore.fish
    """
    from click.shell_completion import get_completion_class

    from engine.cli.app import COMPLETE_VARIABLE, PROGRAM, app

    found = get_completion_class(shell)
    assert found is not None  # the choice above lists those that click has
    write_raw(found(app, {}, PROGRAM, COMPLETE_VARIABLE).source().rstrip("\n"))
