"""Settings for all tests."""

import pytest
from hypothesis import settings

settings.register_profile("usual", max_examples=25, deadline=None)
settings.register_profile("long", max_examples=200, deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    """Try more examples where the long tests are asked for."""
    settings.load_profile("long" if config.option.markexpr == "prove" else "usual")
