"""How the process begins and ends: signals, streams, and threads that do not.

A tool that runs in a thread cannot be interrupted. Python would wait for that thread at the end of
the process; we do not. Its call is recorded as unknown, or will be found open by the next resume.
"""

import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn, TextIO

__all__ = ["leave", "prepare", "silence"]


def prepare() -> None:
    """Make SIGTERM the same as Ctrl-C, and let every text be printed, wherever it goes."""
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the process was begun without it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):  # what its encoding does not have is escaped
            stream.reconfigure(errors="backslashreplace")


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(number, frame)
    else:  # a background job of a shell ignores Ctrl-C, but not this
        raise KeyboardInterrupt


def leave(code: int) -> NoReturn:
    """End the process, whatever its threads do."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            silence(stream)
        except OSError as error:  # a full disk, most likely; then the result was not told
            code = code or 1
            os.write(2, f"Error: {stream.name}: {error.strerror}\n".encode())
            silence(stream)
    if any(_blocks_exit(thread) for thread in threading.enumerate()):
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def silence(stream: TextIO) -> None:
    """Let what is still written to a stream without a reader go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _blocks_exit(thread: threading.Thread) -> bool:
    return thread.is_alive() and not thread.daemon and thread is not threading.main_thread()
