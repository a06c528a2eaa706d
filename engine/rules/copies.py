"""Copies of JSON values."""

from carstore.names import Json

__all__ = ["own_copy"]


def own_copy(value: Json) -> Json:
    """A copy of a JSON value that shares nothing that can change, keys in the same order."""
    if isinstance(value, dict):
        return {key: own_copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [own_copy(item) for item in value]
    return value
