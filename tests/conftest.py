"""What all tests share: the real servers, and how hard Hypothesis tries."""

import os

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = (
    "tests.support.kafka_broker",
    "tests.support.postgres",
    "tests.support.anvil",
    "tests.support.fault_matrix",
)

# No deadline for one example: the two cores are shared with servers that the tests started.
settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
# The full counts of `scripts/test --long` look at new examples in every run.
settings.register_profile(
    "long",
    settings.get_profile("default"),
    derandomize=False,
    max_examples=2_000,
    print_blob=True,
)
LONG = os.environ.get("SYNOR_LONG") == "1"
settings.load_profile("long" if LONG else "default")

#: A full count takes longer than the two minutes after which a test of the short run hangs.
LONG_S = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests at their full counts the time for them, where they do not name their own."""
    for item in items:
        if LONG and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONG_S))
