"""How ids, tool names and state keys may be spelled: `engine.ir` and the tools ask here."""

import re
import unicodedata

__all__ = ["MAX_ID_CHARS", "MAX_STATE_KEY_BYTES", "problem_with_id", "problem_with_state_key"]

MAX_ID_CHARS = 128
"""Characters of an id: room for a UUID with a prefix, and still one line of a table."""

MAX_STATE_KEY_BYTES = 512
"""Bytes of a state key in UTF-8: room for a path, and short enough to be part of an index."""

_SHOWN_CHARS = 40

_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:/-]{{0,{MAX_ID_CHARS - 1}}}\Z")
_NOT_OF_AN_ID = re.compile(r"[^A-Za-z0-9._:/-]")


def problem_with_id(text: object) -> str | None:
    """Why `text` cannot be an id or the name of a tool, or None if it can.

    It can when it has 1 to 128 of `A-Z a-z 0-9 . _ : / -` and begins with a letter or digit.
    """
    if not isinstance(text, str):
        return f"is of type {type(text).__name__}, not a string"
    if _ID.match(text) is not None:
        return None
    if not text:
        return "is empty"
    if len(text) > MAX_ID_CHARS:
        return f"has {len(text):,} characters; at most {MAX_ID_CHARS} are allowed"
    wrong = _NOT_OF_AN_ID.search(text)
    if wrong is not None:
        return f"{_shown(text)} holds {wrong[0]!a}; allowed are A-Z a-z 0-9 . _ : / -"
    return f"{_shown(text)} begins with {text[0]!a}; it must begin with a letter or a digit"


def problem_with_state_key(text: object) -> str | None:
    """Why `text` cannot be a state key, or None if it can.

    It can when it is not empty, is in Unicode's form NFC (so that two spellings of one word are
    one key), has no control characters and at most 512 bytes in UTF-8.
    """
    if not isinstance(text, str):
        return f"is of type {type(text).__name__}, not a string"
    if not text:
        return "is empty"
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        return f"{_shown(text)} holds a lone surrogate at character {error.start}"
    if size_bytes > MAX_STATE_KEY_BYTES:
        return f"has {size_bytes:,} bytes; at most {MAX_STATE_KEY_BYTES} are allowed"
    if text.isascii() and text.isprintable():
        return None
    for place, character in enumerate(text):
        if unicodedata.category(character) == "Cc":
            return f"{_shown(text)} holds the control character {character!a} at character {place}"
    if not unicodedata.is_normalized("NFC", text):
        return f"{_shown(text)} is not in Unicode's form NFC; pass it through NFC first"
    return None


def _shown(text: str) -> str:
    """`text` in ASCII, cut: it comes from a model and goes to a terminal."""
    return ascii(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "...")
