"""What runs in the child of a `SubprocessExecutor`: a guard, and a worker that calls the tool.

The executor starts this file with a new session and four pipes: the request on standard input, the
tool's own printing on standard error, the result, and a lifeline. The process forks at once.

* The **worker** leads a process group of its own, reads the request, loads the tools, sets its
  limits, calls the tool and writes two lines to the result: the number of its group, before
  anything else, and a JSON object with one of the keys `output`, `raised`, `too_large`, `not_json`,
  `out_of_memory`.
* The **guard** runs no code of the tool. It waits for the worker to end or for the lifeline to,
  whose other end only the executor's process holds, so that it ends when that process does,
  however it does. Then it stops the worker's group: SIGTERM, `GRACE_SECONDS`, SIGKILL. In any case
  it kills what is left over of the group, and adds a last line to the result: how the worker ended.

The guard exits after everything else is dead, so whoever waits for it knows that nothing of the
call is left. On Linux it adopts what its descendants leave behind, so a process that went into
another session is found too. On other systems a process that leaves the group is beyond its reach.

Should somebody kill the guard, Linux kills the worker with it, and the executor kills the worker's
group; a process that has left the group gets away then.
"""

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["main"]

GRACE_SECONDS = 0.5
"""Between SIGTERM and SIGKILL. The engine leaves a cancelled call alone after one second, and by
then it shall be dead."""

SWEEP_SECONDS = 5.0
"""How long the guard tries to kill what is left over. What resists hangs in the kernel."""

ROOT = str(Path(__file__).resolve().parents[2])
"""Where the packages stand: the child shall import the same ones as its parent."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

NO_REPORT = 70
"""Exit code of a worker that could not report; a tool that ends the process has any code."""


def main(arguments: list[str]) -> int:
    """Be the guard of one call; `arguments` are the numbers of the lifeline and the result."""
    lifeline, result = (int(number) for number in arguments)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wakeup, wake = os.pipe()
    for end in (wakeup, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, _nothing)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    guard = os.getpid()
    worker = os.fork()
    if worker == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (lifeline, wakeup, wake):
            os.close(number)
        _work(guard, result)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(worker, worker)  # the worker does it too: whoever is first
    os.close(0)
    status, cpu_secs = _watch(worker, lifeline, wakeup)
    left = _sweep(worker)
    _report_end(result, status, cpu_secs, left=left)
    return 0


# --- the guard ---


def _watch(worker: int, lifeline: int, wakeup: int) -> tuple[int, float]:
    """Wait for the worker's end; stop it if the lifeline ends first."""
    poll = select.poll()
    poll.register(wakeup, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    kill_at: float | None = None
    while True:
        pid, status, usage = os.wait4(worker, os.WNOHANG)
        if pid:
            return status, usage.ru_utime + usage.ru_stime
        wait_ms = None if kill_at is None else max(0.0, kill_at - time.monotonic()) * 1000 + 1
        ready = [number for number, _ in poll.poll(wait_ms)]
        with contextlib.suppress(BlockingIOError):
            os.read(wakeup, 512)
        if lifeline in ready:
            poll.unregister(lifeline)
            _kill_group(worker, signal.SIGTERM)
            kill_at = time.monotonic() + GRACE_SECONDS
        elif kill_at is not None and time.monotonic() >= kill_at:
            _kill_group(worker, signal.SIGKILL)
            kill_at = None


def _sweep(group: int) -> bool:
    """Kill what the worker has left behind; whether something resists."""
    until = time.monotonic() + SWEEP_SECONDS
    while True:
        group_is_gone = not _kill_group(group, signal.SIGKILL)
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if _reap() and group_is_gone:
            return False
        if time.monotonic() > until:
            return True
        time.sleep(0.002)


def _kill_group(group: int, number: signal.Signals) -> bool:
    """Send a signal to a process group; whether there was somebody in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # so says macOS of a group of zombies
        return False
    return True


def _children() -> list[int]:
    """The children of this process, adopted ones included, where the system can tell them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _reap() -> bool:
    """Take the end of every child that has ended; whether none is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _report_end(result: int, status: int, cpu_secs: float, *, left: bool) -> None:
    exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else "null"
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else "null"
    line = (
        f'\n{{"exit_code":{exit_code},"signal":{number},"cpu_ms":{int(cpu_secs * 1000)},'
        f'"left":{"true" if left else "false"}}}'
    )
    with contextlib.suppress(BrokenPipeError):  # nobody is left to be told
        os.write(result, line.encode())


# --- the worker ---


class _Stopped(SystemExit):
    """Raised in the tool by SIGTERM, so that its `finally` clauses run."""


def _work(guard: int, result: int) -> None:
    """Do the call, and end this process."""
    code = NO_REPORT
    try:
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            return  # it was killed before that was set
        signal.signal(signal.SIGTERM, _stop)
        os.set_inheritable(result, False)  # noqa: FBT003 - it takes no keywords
        os.write(result, b"%d\n" % os.getpid())  # whom to kill if the guard is gone
        with open(0, "rb", closefd=False) as file:
            request = file.read()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        sys.path.insert(0, ROOT)
        from engine.process.work import answer

        sys.path.remove(ROOT)
        line = answer(request)
        while line:
            line = line[os.write(result, line) :]
        code = 0
    except _Stopped:
        code = 128 + signal.SIGTERM
    except BaseException as error:  # noqa: BLE001 - told on standard error, then the process ends
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        # Without the interpreter's farewell: a thread of the tool that never ends would hold it up.
        os._exit(code)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Stopped(128 + signal.SIGTERM)


def _nothing(number: int, frame: FrameType | None) -> None:
    """SIGCHLD: a handler there must be, for the pipe to be woken."""


def _prctl(option: int, value: int) -> None:
    """Ask Linux for something; other systems do not have it, and the guard's lifeline is enough."""
    if sys.platform != "linux":
        return
    import ctypes

    call: Any = ctypes.CDLL(None).prctl
    call(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
