"""What can go wrong with views, beside what can go wrong with the log."""

from typing import ClassVar

from attrs import define

from carstore.errors import CarstoreError

__all__ = [
    "InvalidSearch",
    "InvalidSelection",
    "InvalidView",
    "NoFullText",
    "RebuildOvertaken",
    "ViewDamaged",
    "ViewFailed",
]


@define(slots=False, eq=False)
class ViewDamaged(CarstoreError):
    """The stored rows of a view are not what this program stored. The log is not concerned."""

    code: ClassVar[str] = "view_damaged"
    view: str
    reason: str

    @property
    def message(self) -> str:
        return (
            f"the stored rows of view {self.view!r} cannot be used: {self.reason}. The log is not "
            "concerned; `carstore rebuild` makes them anew from it."
        )


@define(slots=False, eq=False)
class RebuildOvertaken(CarstoreError):
    """Another rebuild of the same view began before this one was done, and goes on."""

    code: ClassVar[str] = "rebuild_overtaken"
    view: str

    @property
    def message(self) -> str:
        return (
            f"another rebuild of view {self.view!r} began before this one was done, and goes on in "
            "its place. The rows in use were not touched by this one; if the other one does not "
            "end well either, run it again."
        )


@define(slots=False, eq=False)
class InvalidView(CarstoreError):
    """The definition of a view does not fit together, or a file of views cannot be used."""

    code: ClassVar[str] = "invalid_view"
    view: str
    """Empty if it is about a whole file."""
    reason: str
    path: str | None = None
    """The file of views."""

    @property
    def message(self) -> str:
        place = [] if self.path is None else [self.path]
        name = [f"view {self.view!r}"] if self.view else []
        return f"{': '.join([*place, *name])}: {self.reason}."

    @property
    def where(self) -> str | None:
        return self.path


@define(slots=False, eq=False)
class ViewFailed(CarstoreError):
    """The functions of a view raised, or made rows that no view can have. It is not stored."""

    code: ClassVar[str] = "view_failed"
    view: str
    reason: str

    @property
    def message(self) -> str:
        return (
            f"view {self.view!r} cannot be folded: {self.reason}. What was stored of it stays as "
            "it was, and the log is not concerned. Correct the definition of the view."
        )


@define(slots=False, eq=False)
class InvalidSelection(CarstoreError):
    """Rows were asked for by a column that the view does not have, or a value of another type."""

    code: ClassVar[str] = "invalid_selection"
    view: str
    reason: str

    @property
    def message(self) -> str:
        return f"view {self.view!r}: {self.reason}."

    @property
    def where(self) -> str | None:
        return self.view


@define(slots=False, eq=False)
class InvalidSearch(CarstoreError):
    """What is searched for cannot be searched for."""

    code: ClassVar[str] = "invalid_search"
    words: str
    reason: str

    @property
    def message(self) -> str:
        return f"cannot search for {self.words!r:.200}: {self.reason}"

    @property
    def where(self) -> str | None:
        return self.words


@define(slots=False, eq=False)
class NoFullText(CarstoreError):
    """The SQLite of this Python was built without FTS5, which the search needs."""

    code: ClassVar[str] = "no_full_text"
    sqlite: str

    @property
    def message(self) -> str:
        return (
            f"the SQLite of this Python, {self.sqlite}, was built without FTS5, which searching "
            "needs. Use a Python whose SQLite has it, as those of python.org and of Debian do."
        )
