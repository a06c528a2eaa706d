"""The process that bears children with the library of `shim.c` loaded.

It reads one request per line, which names lives that begin at once, forks a child for each, waits
for all of them, and answers with a line. It has everything imported and no threads, so a life costs
milliseconds. A life is a function of `engine.prove.disk.lives`; what it returns is its report.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

from engine.prove.disk.shim import configure

_LIVES = "engine.prove.disk.lives"


def main() -> None:
    lives = importlib.import_module(_LIVES)
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        pids = [_born(getattr(lives, one["life"]), one) for one in request["lives"]]
        ended = [_ended(pid, time.monotonic() + request["seconds"]) for pid in pids]
        sys.stdout.write(json.dumps(ended) + "\n")
        sys.stdout.flush()


def _born(life: Any, request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output = os.open(request["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for stream in (1, 2):
            os.dup2(output, stream)
        if request["broken"]:
            from engine.prove.broken import BREAKAGES

            BREAKAGES[request["broken"]].apply()
        configure(request["disk"])
        report = life(**request["arguments"])
        configure(None)
        with open(request["report"], "w", encoding="utf-8") as file:
            json.dump(report, file)
        code = 0
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def _ended(pid: int, until: float) -> int | None:
    """The exit code, negative for a signal; `None` if it had to be ended."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.0005)


if __name__ == "__main__":
    main()
