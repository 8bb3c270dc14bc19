"""What quantities count, in words."""

from __future__ import annotations

from domain.catalogue import VERSION_1, How, base_unit


def test_what_is_metered_has_a_unit_of_its_own_and_what_is_allocated_counts_milliseconds() -> None:
    """A row of the price list without its unit would be shown in the wrong one."""
    for row in VERSION_1:
        counts_time = base_unit(row.resource) in ("milli·ms", "MB·ms")
        assert counts_time or row.how is How.METERED, row.resource
        assert base_unit(row.resource) != "milli·ms" or row.how is How.ALLOCATED, row.resource
