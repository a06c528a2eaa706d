"""Facts about what models and tools cost."""

from typing import ClassVar

from attrs import frozen


@frozen(kw_only=True)
class InferenceMetered:
    """Tokens and money spent by an agent: in one attempt of an action, or in proposing."""

    kind: ClassVar[str] = "inference_metered"
    agent: str
    action_id: str
    attempt: int
    n: int
    """Counts the meterings of one attempt from 0; with run, action and attempt it is an id."""
    model: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost_micros: int = 0
    """Millionths of a unit of `currency`."""
    currency: str = "USD"
