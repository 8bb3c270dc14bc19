"""What all tests share: the real servers, and how hard Hypothesis tries."""

import os

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
settings.load_profile("long" if os.environ.get("SYNOR_LONG") == "1" else "default")
