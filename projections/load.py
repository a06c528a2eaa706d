"""Views that a user has written, from a Python file."""

from pathlib import Path
from typing import Any

from carstore.errors import NotFound
from carstore.python_file import import_failure, import_file
from projections.catalog import VIEWS
from projections.errors import InvalidView
from projections.view import View

__all__ = ["load_views"]


def load_views(path: str) -> tuple[View[Any, Any], ...]:
    """The views of a Python file, in the order in which they stand in it.

    They are the `View` objects at its top level; views of this package that the file has imported,
    to make others of them, are left out.

    Raises:
        NotFound: there is no such file.
        InvalidView: importing it fails, a view in it does not fit together, it has none, or two
            views have one name, or one has the name of a view of this package.
    """
    file = Path(path)
    if not file.is_file():
        raise NotFound("file of views", path, "Name a FILE.py in which views are written.")
    try:
        module = import_file(file)
    except InvalidView as error:  # a view of it; its line is of use too
        reason = f"{error.reason} ({import_failure(error, __file__).partition(':')[0]})"
        raise InvalidView(error.view, reason, path) from error
    except (Exception, SystemExit) as error:
        raise InvalidView("", import_failure(error, __file__), path) from error
    found: dict[str, View[Any, Any]] = {}
    for view in vars(module).values():
        if isinstance(view, View) and not any(view is known for known in VIEWS):
            _check(view, found, path)
            found[view.name] = view
    if not found:
        reason = "no views in it. Write `NAME = View(...)` at its top level"
        raise InvalidView("", reason, path)
    return tuple(found.values())


def _check(view: View[Any, Any], found: dict[str, View[Any, Any]], path: str) -> None:
    """Check that nothing else has the name.

    Raises:
        InvalidView
    """
    if any(view.name == known.name for known in VIEWS):
        raise InvalidView(view.name, "carstore has a view of this name. Give it another", path)
    if found.get(view.name, view) is not view:
        reason = "there are two views of this name; a program uses one version of a view"
        raise InvalidView(view.name, reason, path)
    if view.inline is not None or view.newest is not None:
        raise InvalidView(view.name, "`inline` and `newest` are for views of carstore", path)
