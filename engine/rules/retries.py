"""How often an action is tried, and how long between."""

from attrs import frozen

from engine.ir import Action, FailureBehavior

__all__ = ["Backoff", "attempts_allowed"]


@frozen(kw_only=True)
class Backoff:
    """The delay before the n-th retry: `base_ms * factor**(n-1)`, at most `cap_ms`.

    The seed's numbers, and a cap, so that many retries end within hours instead of centuries.
    """

    base_ms: int = 100
    factor: int = 2
    cap_ms: int = 60_000

    def delay_ms(self, retry: int) -> int:
        """Milliseconds to wait before retry number `retry`, counted from 1."""
        delay_ms = self.base_ms
        for _ in range(retry - 1):
            if delay_ms >= self.cap_ms:
                break
            delay_ms *= self.factor
        return min(self.cap_ms, delay_ms)


def attempts_allowed(action: Action) -> int:
    """How many attempts an action has, the first included (seed: only `retry` retries)."""
    return action.max_retries + 1 if action.failure_behavior is FailureBehavior.RETRY else 1
