"""The price list (R2): rows, charges and the split of each revenue class (R3).

``charge`` and ``split`` are functions of the cumulative quantity alone; what is posted is the
difference to what was posted before (R1.4, R1.5), so batching and window length change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Final

from domain.record import record

HOUR_MS: Final = 3_600_000
MONTH_MS: Final = 30 * 24 * HOUR_MS


class How(Enum):
    """Allocated quantities are derived by the ledger; metered ones are signed readings."""

    ALLOCATED = "ALLOCATED"
    METERED = "METERED"


class Revenue(Enum):
    """The class of revenue, which decides the split (R3)."""

    COMPUTE = "COMPUTE"
    STORAGE = "STORAGE"
    NETWORK = "NETWORK"


@record("synor.market.v1.PriceRow")
class PriceRow:
    """One row of the catalogue: ``charge(q) = floor(q * price_nano / unit)``."""

    resource: Annotated[str, "name, for example gpu.h100"]
    how: Annotated[How, "allocated (derived) or metered (signed readings)"]
    unit: Annotated[int, "base units that cost price_nano: 3.6e9 milli-device·ms a device·hour"]
    price_nano: Annotated[int, "list price in nano SYNOR per unit"]
    revenue: Annotated[Revenue, "class of revenue: who gets what share"]
    market: Annotated[bool, "device time, priced by rounds (R2.5); the list price is its reference"]


@record("synor.market.v1.Share")
class Share:
    """The protocol's share of a revenue class as a fraction; the provider gets the rest."""

    revenue: Annotated[Revenue, "class of revenue"]
    protocol_num: Annotated[int, "numerator of the protocol's share"]
    protocol_den: Annotated[int, "denominator of the protocol's share"]


def charge(row: PriceRow, quantity: int, price_nano: int | None = None) -> int:
    """Cumulative charge in nano for a cumulative quantity, at the row's or a lease's own price."""
    return quantity * (row.price_nano if price_nano is None else price_nano) // row.unit


def protocol_share(share: Share, charged_nano: int) -> int:
    """The protocol's part of a cumulative charge (R1.5), rounded down."""
    return charged_nano * share.protocol_num // share.protocol_den


def worst_case(row: PriceRow, amount: int, price_nano: int, term_us: int) -> int:
    """``amount × ceil(price × term_ms / unit)`` (R4.2): what a bid reserves for one resource.

    ``amount`` is the allocation in thousandths or MB; the term is rounded up to a millisecond.
    """
    term_ms = -(-term_us // 1000)
    return amount * -(-price_nano * term_ms // row.unit)


_NANO: Final = 1_000_000_000
_DEVICE_HOUR: Final = 1000 * HOUR_MS  # milli-device·ms in a device·hour; also MB·ms in a GB·hour
_DEVICE_MONTH: Final = 1000 * MONTH_MS


def _allocated(
    resource: str, synor_nano: int, unit: int, revenue: Revenue, *, market: bool = False
) -> PriceRow:
    return PriceRow(
        resource=resource,
        how=How.ALLOCATED,
        unit=unit,
        price_nano=synor_nano,
        revenue=revenue,
        market=market,
    )


def _metered(resource: str, synor_nano: int, unit: int, revenue: Revenue) -> PriceRow:
    return PriceRow(
        resource=resource,
        how=How.METERED,
        unit=unit,
        price_nano=synor_nano,
        revenue=revenue,
        market=False,
    )


_C, _S, _N = Revenue.COMPUTE, Revenue.STORAGE, Revenue.NETWORK

#: Catalogue version 1 in row order, which is also the order in which an escrow fills (R4.5).
VERSION_1: Final[tuple[PriceRow, ...]] = (
    _allocated("gpu.rtx4090", _NANO // 2, _DEVICE_HOUR, _C, market=True),
    _allocated("gpu.a100-80gb", 2 * _NANO, _DEVICE_HOUR, _C, market=True),
    _allocated("gpu.h100", 4 * _NANO, _DEVICE_HOUR, _C, market=True),
    _allocated("gpu.vram", _NANO // 100, _DEVICE_HOUR, _C),
    _metered("inference.tokens", _NANO // 10, 1_000_000, _C),
    _allocated("container.cpu", _NANO // 50, _DEVICE_HOUR, _C),
    _allocated("container.memory", _NANO // 200, _DEVICE_HOUR, _C),
    _allocated("container.ephemeral", _NANO // 1000, _DEVICE_HOUR, _S),
    _allocated("storage.hot", _NANO // 10, _DEVICE_MONTH, _S),
    _metered("network.ingress", 0, 1_000_000_000, _N),
    _metered("network.egress", _NANO // 20, 1_000_000_000, _N),
    _allocated("network.load-balancer", _NANO // 100, _DEVICE_HOUR, _N),
    _allocated("network.static-ip", 2 * _NANO, _DEVICE_MONTH, _N),
    _allocated("vm.micro", 5 * _NANO, _DEVICE_MONTH, _C),
    _allocated("vm.small", 15 * _NANO, _DEVICE_MONTH, _C),
    _allocated("vm.medium", 30 * _NANO, _DEVICE_MONTH, _C),
    _allocated("vm.large", 80 * _NANO, _DEVICE_MONTH, _C),
    _allocated("vm.xlarge", 200 * _NANO, _DEVICE_MONTH, _C),
    _allocated("vm.gpu-small", 400 * _NANO, _DEVICE_MONTH, _C),
    _allocated("vm.gpu-medium", 750 * _NANO, _DEVICE_MONTH, _C),
    _allocated("vm.gpu-large", 2500 * _NANO, _DEVICE_MONTH, _C),
    _allocated("vm.gpu-xlarge", 8000 * _NANO, _DEVICE_MONTH, _C),
    _metered("function.invocations", _NANO // 5, 1_000_000, _C),
    _metered("function.duration", _NANO // 100_000, 1_000_000, _C),
    _allocated("function.provisioned", _NANO // 100, _DEVICE_HOUR, _C),
    _metered("function.http-gateway", _NANO // 10, 1_000_000, _N),
    _metered("function.event-bridge", _NANO // 2, 1_000_000, _N),
    _metered("edge.invocations", _NANO // 2, 1_000_000, _C),
    _metered("edge.duration", _NANO // 50_000, 1_000_000, _C),
    _metered("edge.bandwidth", 8 * _NANO // 100, 1_000_000_000, _N),
    _allocated("edge.cache", _NANO // 50, _DEVICE_MONTH, _S),
    _metered("edge.transcoding", _NANO // 50, 60_000, _C),
)

#: R3: the protocol's share of compute, storage and network fees.
SHARES_1: Final[tuple[Share, ...]] = (
    Share(revenue=Revenue.COMPUTE, protocol_num=15, protocol_den=100),
    Share(revenue=Revenue.STORAGE, protocol_num=20, protocol_den=100),
    Share(revenue=Revenue.NETWORK, protocol_num=25, protocol_den=100),
)


#: Resources whose allocations are MB (10^6 bytes); those of all others are thousandths.
IN_MB: Final = frozenset(
    {
        "gpu.vram",
        "container.memory",
        "container.ephemeral",
        "storage.hot",
        "function.provisioned",
        "edge.cache",
    }
)
_METERED_IN: Final[Mapping[str, str]] = {
    "inference.tokens": "token",
    "network.ingress": "byte",
    "network.egress": "byte",
    "function.invocations": "request",
    "function.duration": "MB·ms",
    "function.http-gateway": "request",
    "function.event-bridge": "event",
    "edge.invocations": "request",
    "edge.duration": "MB·ms",
    "edge.bandwidth": "byte",
    "edge.transcoding": "ms",
}


def base_unit(resource: str) -> str:
    """What quantities of a resource count (R1.4): a metered unit, or so much for a millisecond."""
    if resource in IN_MB:
        return "MB·ms"
    return _METERED_IN.get(resource, "milli·ms")


class Catalogue:
    """The rows of one catalogue version, by name and by row number (its place in the list)."""

    def __init__(self, rows: tuple[PriceRow, ...], shares: tuple[Share, ...]) -> None:
        """Index the rows; their order is the catalogue row order of R4.5."""
        self.rows = rows
        self.number: Mapping[str, int] = {row.resource: i for i, row in enumerate(rows)}
        self._shares = {share.revenue: share for share in shares}

    def row(self, resource: str) -> PriceRow | None:
        """The row of a resource, or None where the catalogue has none."""
        number = self.number.get(resource)
        return None if number is None else self.rows[number]

    def share(self, row: PriceRow) -> Share:
        """The split that applies to a row."""
        return self._shares[row.revenue]
