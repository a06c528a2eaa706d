"""Canonical JSON: one text for one value, and nothing that another reader could take otherwise.

Written: UTF-8, keys sorted, no white space, no escapes but those JSON demands. Refused, in both
directions: NaN and infinities, integers outside 64 bits, lone surrogates, duplicate keys, keys that
are not strings, and whatever is deeper or larger than the limits. Size and depth of a text are
looked at before it is parsed, because a parser can be attacked with both.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from json import encoder
from typing import Any, cast

from carstore.errors import InvalidJson
from carstore.names import Json

MAX_DEPTH = 64
"""Containers within containers. Models nest a handful; a parser's stack ends near a thousand."""

MAX_BYTES = 16 * 1024 * 1024
"""Bytes of one value as text. Larger ones belong in a file, with its hash in the log."""

_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1

quote = encoder.encode_basestring
"""A str as a JSON string, escaping only what must be: the standard library's C function."""

_encoder = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
)

# Its C part, made once: `encode` makes another for each call, at more than twice the cost.
_make_chunks: Any = cast(Any, encoder).c_make_encoder  # None where the library has no C part
_chunks: Callable[[Json, int], tuple[str, ...]] | None = _make_chunks and _make_chunks(
    None, _encoder.default, quote, None, ":", ",", _encoder.sort_keys, _encoder.skipkeys,
    _encoder.allow_nan,
)  # fmt: skip


def _to_text(value: Json) -> str:
    return _encoder.encode(value) if _chunks is None else "".join(_chunks(value, 0))


def dumps(value: Json, path: str = "$") -> str:
    """The canonical text of `value`.

    Raises:
        InvalidJson: naming the path below `path` of what JSON cannot hold.
    """
    kind = type(value)
    if kind is str:
        return bounded(quote(_checked_str(value, path)), path)
    if kind is dict or kind is list:
        _check(value, path, MAX_DEPTH)
        return bounded(_to_text(value), path)
    return scalar(value, path)


def scalar(value: Json, path: str) -> str:
    """The canonical text of None, a bool, an int or a float."""
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if type(value) is not int or not _MIN_INT <= value <= _MAX_INT:
        _check(value, path, MAX_DEPTH)
    return repr(value)


def check(value: Json, path: str = "$") -> None:
    """Raise `InvalidJson` unless `value` has a canonical text."""
    dumps(value, path)


def digest(value: Json) -> str:
    """SHA-256 (hex) of the canonical text of `value`. Raises `InvalidJson` as `dumps` does."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()


def loads(text: str | bytes, path: str = "$", *, max_bytes: int = MAX_BYTES) -> Json:
    """Parse a JSON text strictly.

    Args:
        text: UTF-8 bytes or a str.
        path: what the text is called in errors.
        max_bytes: limit on its size, in bytes.

    Raises:
        InvalidJson: if it is not JSON, or is JSON of a kind refused here.
    """
    if len(text) > max_bytes:
        raise InvalidJson(path, f"larger than {max_bytes:,} bytes")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidJson(path, f"not UTF-8 at byte {error.start}") from None
    if len(text) * 4 > max_bytes and len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        raise InvalidJson(path, f"larger than {max_bytes:,} bytes")
    _check_depth_of_text(text, path)
    try:
        value = _parse(text)
    except json.JSONDecodeError as error:
        raise InvalidJson(
            path, f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except _Refused as error:
        raise InvalidJson(path, str(error)) from None
    _check(value, path, MAX_DEPTH)
    return value


def loads_trusted(text: str) -> Json:
    """Parse a text that was written by `dumps`: nothing stands before or after the value.

    Raises:
        ValueError: it is no such text.
    """
    try:
        value, end = _scan(text, 0)  # half the time of `json.loads`, which looks for white space
    except StopIteration as error:
        raise ValueError(f"not JSON at character {error.value}") from None
    if end != len(text):
        raise ValueError(f"not JSON at character {end}: the value ends there")
    return value


_scan: Callable[[str, int], tuple[Json, int]] = cast(Any, json.JSONDecoder()).scan_once


class _Refused(ValueError):
    pass


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"key {key!r:.80} stands twice in one object")
            seen.add(key)
    return found


def _no_constant(name: str) -> Json:
    raise _Refused(f"{name} is not JSON")


def _bounded_int(digits: str) -> int:
    # Twenty characters hold every 64-bit integer; longer ones would also be slow to convert.
    if len(digits) > 20 or not _MIN_INT <= (number := int(digits)) <= _MAX_INT:
        raise _Refused(f"integer {digits:.24} is outside 64 bits")
    return number


_parse = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_bounded_int
).decode

# Everything but the brackets outside of strings; a string may lack its end.
_NO_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[^\[\]{}"]+', re.DOTALL)


def _check_depth_of_text(text: str, path: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _NO_BRACKETS.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise InvalidJson(path, f"nested deeper than {MAX_DEPTH} levels")


def _check(value: Any, path: str, depth: int) -> None:
    try:
        _walk(value, depth)
    except _Found as found:
        raise InvalidJson(path + "".join(reversed(found.steps)), found.reason) from None


class _Found(Exception):  # the walk's way back up, collecting the path as it goes
    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.steps: list[str] = []


def _walk(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if not value.isascii() and (reason := _surrogate(value)):
            raise _Found(reason)
    elif kind is int:
        if not _MIN_INT <= value <= _MAX_INT:
            raise _Found("integer outside 64 bits")
    elif kind is dict or kind is list:
        if depth == 0:
            raise _Found(f"nested deeper than {MAX_DEPTH} levels")
        _walk_items(value, depth - 1)
    elif kind is float:
        if not math.isfinite(value):
            raise _Found(f"{value} is not a finite number")
    elif value is not None and kind is not bool:
        raise _Found(f"a {kind.__name__} is not JSON")


def _walk_items(value: dict[str, Any] | list[Any], depth: int) -> None:
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                raise _Found(f"its key {key!r:.80} is not a string")
    step: Any = None
    try:
        if type(value) is dict:
            for step, item in value.items():
                if not step.isascii():
                    _walk(step, 0)
                if type(item) is not str or not item.isascii():  # a call costs more than this look
                    _walk(item, depth)
        else:
            for step, item in enumerate(value):  # noqa: B007
                if type(item) is not str or not item.isascii():
                    _walk(item, depth)
    except _Found as found:
        found.steps.append(f"[{step}]" if type(step) is int else f".{step:.80}")
        raise


def _surrogate(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"lone surrogate at character {error.start}"
    return None


def _checked_str(value: str, path: str) -> str:
    if not value.isascii() and (reason := _surrogate(value)):
        raise InvalidJson(path, reason)
    return value


def bounded(text: str, path: str = "$") -> str:
    """`text`, unless it is larger than any value may be."""
    if len(text) * 4 > MAX_BYTES and len(text.encode()) > MAX_BYTES:
        raise InvalidJson(path, f"larger than {MAX_BYTES:,} bytes")
    return text
