"""Values beside the log: what is too large for an event, or must be possible to forget.

An event can never be erased, so it holds a reference, `{"$blob": HASH, "bytes": SIZE}`, in the
place of such a value, and the table `blobs` holds the value. The hash covers a nonce and the
canonical text of the value. The nonce of a sensitive value is random, so that its hash tells
nothing about it once the value is forgotten; that of others is empty, so that equal values are
kept once.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, TypeVar

from attrs import define, field, frozen

from carstore import canonical
from carstore.names import Json, StreamName

if TYPE_CHECKING:
    from carstore.log import StateRead

REFERENCE = "$blob"
"""The name that makes an object a reference, if the others are right too."""

_NAMES = frozenset({REFERENCE, "bytes"})
_NAMES_IF_SENSITIVE = _NAMES | {"sensitive"}
_MARK = f'"{REFERENCE}":"'
_NONCE_BYTES = 16

_MAX_DEPTH = 2 * canonical.MAX_DEPTH
"""Containers and references within each other up to which references are filled: more than any
value needs that was taken apart, and far from where the interpreter's stack ends."""

_Name = TypeVar("_Name")


@frozen
class Blob:
    """A value and its hash (hex), as they are stored."""

    hash: str
    nonce: bytes = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def reference(self) -> Json:
        """What stands in the event."""
        found: dict[str, Json] = {REFERENCE: self.hash, "bytes": len(self.body)}
        return {**found, "sensitive": True} if self.nonce else found


@frozen
class BlobInfo:
    """What may be told of a blob without showing it; `bytes` is the size of its text."""

    hash: str
    bytes: int
    sensitive: bool


class Blobs(Protocol):
    """The port."""

    async def read(self, hashes: Collection[str], *, sensitive: bool = True) -> dict[str, Json]:
        """The values of those that are there, and of those that these refer to in turn.

        Args:
            sensitive: whether references to sensitive values are followed.
        """
        ...

    async def fill(self, value: Json, *, sensitive: bool = True) -> Json:
        """`value` with each reference replaced by its value. One that is forgotten stays, and so do
        the last ones where `value` would become larger than a value may be.

        Args:
            sensitive: whether references to sensitive values are replaced too.
        """
        ...

    async def fill_reads(
        self, reads: "Mapping[_Name, StateRead]", *, sensitive: bool = True
    ) -> "dict[_Name, StateRead]":
        """What was read of the state, with the values filled."""
        ...

    async def infos(self) -> list[BlobInfo]:
        """All that are there, largest first."""
        ...

    async def forget(self, *blobs: str, reason: str, by: str) -> bool:
        """Delete values for good, and append that this was done.

        Returns:
            Whether nothing is left of them in this store; else `scrub` is to be called later.

        Raises:
            NotFound: one is not there, or is forgotten already. Then none was deleted.
        """
        ...

    async def scrub(self, *, rewrite: bool = False) -> bool:
        """Wipe what may be left of values that were forgotten. Returns whether that was done: not
        while others still read what was there before.

        Args:
            rewrite: also write all that is kept anew, which takes its time and as much room again.
        """
        ...


def make_blob(value: Json, *, sensitive: bool) -> Blob:
    """Raises `InvalidJson` if JSON cannot hold `value`."""
    body = canonical.dumps(value).encode()
    nonce = os.urandom(_NONCE_BYTES) if sensitive else b""
    return Blob(hash_of(nonce, body), nonce, body)


def hash_of(nonce: bytes, body: bytes) -> str:
    """SHA-256, in hex."""
    return sha256(nonce + body).hexdigest()


def blob_stream(blob: str) -> StreamName:
    """Where it is recorded that a blob was forgotten; until then there is no such stream."""
    return StreamName(f"blob/{blob}")


def referred(value: Json) -> str | None:
    """The hash if `value` is a reference, else None."""
    if type(value) is not dict or value.keys() not in (_NAMES, _NAMES_IF_SENSITIVE):
        return None
    found, size = value[REFERENCE], value["bytes"]
    well_formed = (
        type(found) is str
        and len(found) == 64
        and all(character in "0123456789abcdef" for character in found)
        and type(size) is int
        and value.get("sensitive", True) is True
    )
    return found if well_formed else None


def is_hidden(value: Json) -> bool:
    """Whether `value` is a reference to a sensitive value."""
    return referred(value) is not None and "sensitive" in value


def references(value: Json, *, sensitive: bool = True) -> Iterator[str]:
    """The hashes of all references in `value`; without those to sensitive values, if asked so."""
    if type(value) is dict:
        found = referred(value)
        if found is not None:
            if sensitive or "sensitive" not in value:
                yield found
            return
        for item in value.values():
            yield from references(item, sensitive=sensitive)
    elif type(value) is list:
        for item in value:
            yield from references(item, sensitive=sensitive)


def has_references(text: str) -> bool:
    """Whether there may be references in a canonical text; quick."""
    return _MARK in text


def references_in_text(text: str, *, sensitive: bool = True) -> set[str]:
    """The same of a canonical text."""
    if not has_references(text):
        return set()
    return set(references(canonical.loads_trusted(text), sensitive=sensitive))


def filled(
    value: Json,
    values: Mapping[str, Json],
    *,
    sensitive: bool = True,
    max_chars: int = canonical.MAX_BYTES,
) -> Json:
    """`value` with references replaced as far as `values` has them; a copy where it differs.

    Args:
        sensitive: whether references to sensitive values are replaced too.
        max_chars: about how large the result may become, in characters of JSON. References that
            come after that stay: a few values that refer to each other can stand for a very large
            one.
    """
    return _Filler(values, sensitive, max_chars).fill(value, _MAX_DEPTH)


@define
class _Filler:
    values: Mapping[str, Json]
    sensitive: bool
    chars_left: int

    def fill(self, value: Json, depth: int) -> Json:
        kind = type(value)
        self.chars_left -= len(value) + 2 if kind is str or kind is dict or kind is list else 1
        if kind is dict:
            found = referred(value)
            if found is not None:
                return (
                    self.fill(self.values[found], depth - 1) if self.goes(value, depth) else value
                )
            self.chars_left -= sum(map(len, value))
            return {name: self.fill(item, depth - 1) for name, item in value.items()}
        if kind is list:
            return [self.fill(item, depth - 1) for item in value]
        return value

    def goes(self, reference: Json, depth: int) -> bool:
        return (
            reference[REFERENCE] in self.values
            and (self.sensitive or "sensitive" not in reference)
            and depth >= 0
            and self.chars_left > 0
        )
