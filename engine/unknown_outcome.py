"""What a tool or an executor raises when a call is over and nobody knows what it did."""

__all__ = ["OutcomeUnknown"]


class OutcomeUnknown(Exception):
    """Base of errors after which it is unknown whether the call had its effect.

    An ordinary exception says that the call failed. One of these says that its answer is missing:
    what carried it out was killed, or cannot be reached any more. It is for the engine what a
    timeout is: a call of a tool that may be repeated is made again, any other is in doubt.
    """
