"""What a usage statement says: cumulative quantities, derived and measured (R1.4, R4.6)."""

from __future__ import annotations

from collections.abc import Mapping


def allocated(amount: int, covered_us: int) -> int:
    """The quantity of an allocated resource: ``floor(amount × covered_us / 1000)`` (R2)."""
    return amount * covered_us // 1000


def quantities(
    amounts: Mapping[int, int], covered_us: int, metered: Mapping[int, int]
) -> tuple[tuple[int, int], ...]:
    """All quantities that are not zero, as (catalogue row, quantity) in row order."""
    found = {row: allocated(amount, covered_us) for row, amount in amounts.items()}
    found.update(metered)
    return tuple((row, quantity) for row, quantity in sorted(found.items()) if quantity)
