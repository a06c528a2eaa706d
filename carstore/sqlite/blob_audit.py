"""Whether the table `blobs` holds what the events say: each value they refer to, unless an event
says that it was forgotten, and none that was."""

from collections.abc import Iterator

from attrs import Factory, define

from carstore.blobs import hash_of, references_in_text
from carstore.verification import Problem


@define
class BlobAudit:
    """What the events said of values, by hash; remembers two numbers for each."""

    referred: dict[str, int] = Factory(dict)
    """The last position that refers to it."""
    _first: dict[str, int] = Factory(dict)
    forgotten: dict[str, int] = Factory(dict)
    """The last position that says that it was forgotten."""

    def follow(self, position: int, data: str, forgets: str | None) -> None:
        """Take in the next event: its data, and the hash that it says was forgotten, if any."""
        for blob in references_in_text(data):
            self.referred[blob] = position
            self._first.setdefault(blob, position)
        if forgets is not None:
            self.forgotten[forgets] = position

    def compared(self, stored: set[str]) -> Iterator[Problem]:
        """What is missing of the hashes that are `stored`, and what should not be there."""
        for blob, position in self._first.items():
            if blob not in stored and blob not in self.forgotten:
                yield Problem(
                    position,
                    "blob",
                    f"event {position} refers to the value {blob}, which is not there, and no "
                    "event says that it was forgotten",
                )
        for blob, position in self.forgotten.items():
            if blob in stored and self.referred.get(blob, 0) < position:
                yield Problem(
                    position,
                    "blob",
                    f"event {position} says that the value {blob} was forgotten, but it is there",
                )

    def missing_in(self, body: bytes, stored: set[str]) -> str | None:
        """What a value that is the one it was refers to in vain, as a sentence; None if nothing."""
        for blob in sorted(references_in_text(body.decode())):
            if blob not in stored and blob not in self.forgotten:
                return f"a value refers to the value {blob}, which is not there"
        return None


def body_amiss(blob: object, nonce: object, body: object) -> str | None:
    """What is wrong with a stored value, as a sentence; None if it is the one it was."""
    if not isinstance(blob, str) or not isinstance(nonce, bytes) or not isinstance(body, bytes):
        return f"the value {blob!r:.80} is not stored as one"
    if hash_of(nonce, body) != blob:
        return f"the value {blob:.80} is not the one its hash was made for"
    return None
