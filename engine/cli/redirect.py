"""Keeping what tools print out of the results: it goes to standard error."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout, suppress

__all__ = ["tools_print_to_stderr"]


@contextmanager
def tools_print_to_stderr() -> Generator[None, None, None]:
    """While this lasts, `print` and the programs that tools start write to standard error."""
    sys.stdout.flush()
    kept = None
    with suppress(OSError):  # a stream that is closed needs no redirection
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
