"""Looking for texts in what an action is given: at any depth, at names as well as values."""

import unicodedata
from collections.abc import Callable, Iterator
from typing import TypeAlias

from carstore import canonical
from carstore.blobs import references
from carstore.names import Json, is_output_reference
from engine.rules.values import is_number

__all__ = ["Search", "holds", "is_open", "search_of", "texts_in"]

Search: TypeAlias = Callable[[str], bool]
"""Whether a pattern is found anywhere in a text."""

_BETWEEN = "\ud800"
"""Stands between two texts: half a surrogate pair, which is in no text of JSON."""


def texts_in(value: Json) -> Iterator[str]:
    """Every text in a value at any depth, names included, and each number as JSON writes it."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
        elif is_number(one):
            yield canonical.scalar(one, "$")


def holds(known: dict[int, str], value: Json, text: str) -> bool:
    """Whether a text is found in a value, in whichever way Unicode spells either.

    Args:
        known: what was put together for values of the same action by earlier rules, by identity;
            so many rules walk through a value once.
    """
    found = known.get(id(value))
    if found is None:
        found = known[id(value)] = _BETWEEN.join(_spellings(value))
    return text in found or (not text.isascii() and unicodedata.normalize("NFC", text) in found)


def _spellings(value: Json) -> Iterator[str]:
    """Every text of a value as it is, and in the form NFC where that is another."""
    for text in texts_in(value):
        yield text
        if not text.isascii() and not unicodedata.is_normalized("NFC", text):
            yield unicodedata.normalize("NFC", text)


def is_open(parameters: Json) -> bool:
    """Whether they hold what stands for something else: an output, or a value beside the log."""
    if next(references(parameters), None) is not None:
        return True
    texts = texts_in(parameters)
    return any(is_output_reference(one) and not one.startswith("$$") for one in texts)


def search_of(pattern: str) -> Search | None:
    """What looks for a pattern, in time linear in the text; None if it is a bad pattern.

    Python's own `re` is never asked: some patterns take it for ever, and the text is a model's.

    Raises:
        ImportError: google-re2 is not installed.
    """
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(pattern, options).search
    except re2.error:
        return None
    return lambda text: found(text) is not None
