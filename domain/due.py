"""The kinds of deadline, by processor. The number orders deadlines of one instant (design 2)."""

from __future__ import annotations

from enum import IntEnum


class MarketDue(IntEnum):
    """Deadlines of the market; at one instant the lower number fires first."""

    PROVIDER_RUINED = 0  # id: provider; more of its leases than one item ends
    LEASE_NOT_READY = 1  # id: lease
    RECLAIM = 2  # id: lease
    NODE_DOWN_TOO_LONG = 3  # id: node
    LEASE_EXPIRES = 4  # id: lease
    MATURITY = 5  # id: account; its oldest posting that is pending
    POT_DIVIDES = 6  # id: pot
    EPOCH = 7  # id: zero
    ROUND_CLEARS = 8  # id: instrument
    OPEN_LEASE = 9  # id: lease; a fill of a cleared round that becomes a lease


class MeteringDue(IntEnum):
    """Deadlines of a metering shard."""

    NODE_SILENT = 1  # id: node
    STATEMENT = 2  # id: window end (8 bytes), then nothing, a lease, or 17 bytes of 0xff
