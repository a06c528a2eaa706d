"""Names of people: when two are one person's.

Nobody can tell from a name who it is. But where two people have to agree, names that differ only in
capital letters, or in what nobody sees, are not taken for two.
"""

import unicodedata

__all__ = ["person", "unseen_in"]

_UNSEEN_CATEGORIES = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}

_UNSEEN = frozenset(
    [
        *map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)),
        *map(chr, range(0x180B, 0x1810)),
        *map(chr, range(0xFE00, 0xFE10)),
        *map(chr, range(0xE0100, 0xE01F0)),
    ]
)
"""What is a letter, a mark or a sign to Unicode and shows nothing: fillers, joiners, variants."""


def person(name: str) -> str:
    """What is equal for all ways to write one name: with other capitals, other forms of a letter,
    more spaces, or with characters that nobody sees."""
    seen = "".join(" " if one.isspace() else one for one in name if not _is_unseen(one))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())
    return " ".join(folded.split())


def unseen_in(name: str) -> str | None:
    """The first character of `name` that nobody sees, or takes for a plain space; None if there is
    none."""
    if name.isascii() and name.isprintable():
        return None
    return next((one for one in name if _is_unseen(one) or (one.isspace() and one != " ")), None)


def _is_unseen(one: str) -> bool:
    return one in _UNSEEN or (not one.isspace() and unicodedata.category(one) in _UNSEEN_CATEGORIES)
