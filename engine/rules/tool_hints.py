"""What the hints of a server say about its tools: which effect mode a tool is given.

A server is not the author of our promises. Its hints are words of a stranger, and the mode decides
whether a call is made a second time. So a hint can make a tool more restricted than somebody here
has declared it, and only somebody who says that this server is trusted lets one make it less so.

The defaults are those of the Model Context Protocol (`ToolAnnotations`): readOnlyHint false,
destructiveHint true, idempotentHint false. What was not said counts as the default.
"""

from attrs import frozen

from engine.tool_schema import EffectMode

__all__ = ["Hints", "contradiction", "effect_of"]


@frozen(kw_only=True)
class Hints:
    """The hints of one tool; None: the server did not say."""

    read_only: bool | None = None
    """A call changes nothing."""
    destructive: bool | None = None
    """A call may destroy something, and not only add."""
    idempotent: bool | None = None
    """A second call with the same arguments has no further effect."""


def effect_of(hints: Hints, *, trusted: bool) -> EffectMode:
    """The mode of a tool for which nobody here has declared one.

    An idempotent hint needs an express `destructive=False`: it is about the same arguments, not
    about the same idempotency key. What only adds can be done again hours later; what destroys
    may meet what somebody has made since.
    """
    if not trusted:
        return EffectMode.ONCE
    if hints.read_only is True:
        return EffectMode.ONCE if hints.destructive is True else EffectMode.READ_ONLY
    if hints.idempotent is True and hints.destructive is False:
        return EffectMode.IDEMPOTENT
    return EffectMode.ONCE


def contradiction(declared: EffectMode, hints: Hints) -> str | None:
    """Why a mode that somebody here has declared cannot be, by the server's own words."""
    if declared is EffectMode.READ_ONLY:
        if hints.read_only is False:
            return "it is declared read_only, but the server says readOnlyHint: false"
        if hints.destructive is True and hints.read_only is not True:
            return "it is declared read_only, but the server says destructiveHint: true"
    if declared is EffectMode.IDEMPOTENT and hints.idempotent is False and not hints.read_only:
        return "it is declared idempotent, but the server says idempotentHint: false"
    return None
