"""What can go wrong with views, beside what can go wrong with the log."""

from typing import ClassVar

from attrs import define

from carstore.errors import CarstoreError

__all__ = ["ViewDamaged"]


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
