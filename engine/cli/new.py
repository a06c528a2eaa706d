"""`carstore new`: a folder to begin with."""

from importlib import resources
from pathlib import Path

import click

from engine.cli.errors import BadUsage
from engine.cli.options import command_line, json_option
from engine.cli.screen import print_json, write

__all__ = ["new"]

FILES = {
    "plan.json": "plan.json",
    "tools.py": "tools.py.txt",
    "policies.toml": "policies.toml",
}
"""The files made, and what they are copied from: a template is no module of ours."""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def new(folder: Path, as_json: bool) -> None:
    """Make DIR with a plan, the tools that it calls, rules for it, and three commands to try."""
    _make(folder)
    commands = _commands(folder)
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "files": [str(folder / name) for name in FILES],
                "commands": commands,
            }
        )
        return
    *some, last = [str(folder / name) for name in FILES]
    write(f"Made {', '.join(some)} and {last}. Try:")
    for command in commands:
        write(f"  {command}")


def _make(folder: Path) -> None:
    """Write the files.

    Raises:
        BadUsage: there is something at `folder`, or it cannot be made.
    """
    templates = resources.files("engine.cli") / "template"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BadUsage("DIR", f"{folder} is not empty. Name a folder that does not exist")
        for name, template in FILES.items():
            with open(folder / name, "x", encoding="utf-8") as file:
                file.write((templates / template).read_text(encoding="utf-8"))
    except FileExistsError:
        raise BadUsage("DIR", f"{folder} is there already, and is no folder") from None
    except OSError as error:
        raise BadUsage("DIR", f"{folder} cannot be made: {error.strerror}") from None


def _commands(folder: Path) -> list[str]:
    plan, tools, database = (str(folder / name) for name in ("plan.json", "tools.py", "agents.db"))
    return [
        command_line("run", database, plan, "--tools", tools, "--run-id", "first"),
        command_line("show", database, "first"),
        command_line("why", database, "greeting"),
    ]
