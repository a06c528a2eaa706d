"""Who gives a command, as far as the system knows."""

import getpass

__all__ = ["person"]


def person() -> str:
    """The name of the account."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in many containers
        return "somebody"
