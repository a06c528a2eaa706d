"""What can go wrong with a run as a whole; what goes wrong with an action is a result."""

from typing import ClassVar

from attrs import define

from carstore.errors import CarstoreError
from carstore.names import RunId

__all__ = ["InvalidRunId", "NoDoubt", "RunExists", "RunOwned", "ToolsChanged"]


@define(slots=False, eq=False)
class RunOwned(CarstoreError):
    """Another process drives the run. Nothing happened."""

    code: ClassVar[str] = "run_owned"
    run_id: RunId
    holder: str
    expires_in_us: int = 0

    @property
    def message(self) -> str:
        wait = ""
        if self.expires_in_us > 0:
            wait = f" If it stays silent, its lease ends in {self.expires_in_us / 1e6:.0f} s."
        return f"run {self.run_id} is being driven by {self.holder}.{wait}"

    @property
    def where(self) -> str | None:
        return self.run_id


@define(slots=False, eq=False)
class RunExists(CarstoreError):
    """A run id is taken by a run of another proposal. Nothing happened."""

    code: ClassVar[str] = "run_exists"
    run_id: RunId

    @property
    def message(self) -> str:
        return f"run {self.run_id} exists already, with another proposal. Choose another run id."

    @property
    def where(self) -> str | None:
        return "run_id"


@define(slots=False, eq=False)
class InvalidRunId(CarstoreError):
    """A text that cannot name a run."""

    code: ClassVar[str] = "invalid_run_id"
    run_id: str

    @property
    def message(self) -> str:
        return (
            f"{self.run_id!r:.140} cannot name a run: 1 to 128 of A-Z a-z 0-9 . _ : -, "
            "beginning with a letter or digit"
        )

    @property
    def where(self) -> str | None:
        return "run_id"


@define(slots=False, eq=False)
class ToolsChanged(CarstoreError):
    """A run was begun with tools that are not the ones given now. Nothing happened."""

    code: ClassVar[str] = "tools_changed"
    run_id: RunId
    missing: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def message(self) -> str:
        parts = []
        if self.missing:
            parts.append(f"not given: {', '.join(self.missing)}")
        if self.changed:
            parts.append(f"declared otherwise than when it began: {', '.join(self.changed)}")
        return (
            f"run {self.run_id} cannot go on with these tools ({'; '.join(parts)}). "
            "Give it the tools it was begun with."
        )

    @property
    def where(self) -> str | None:
        return "tools"


@define(slots=False, eq=False)
class NoDoubt(CarstoreError):
    """An answer to a question that is not open. Nothing happened."""

    code: ClassVar[str] = "no_doubt"
    run_id: RunId
    action_id: str

    @property
    def message(self) -> str:
        return (
            f"action {self.action_id!r} of run {self.run_id} is not in doubt. "
            "`carstore doubts` lists what is."
        )

    @property
    def where(self) -> str | None:
        return self.action_id
