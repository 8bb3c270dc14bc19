"""The demo's cast and script: who there is, what they have, want and do, and when.

Plain data and arithmetic, no chance: the story is the same on every log, to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from domain.bid import BidRow, MeteredLimit
from domain.catalogue import SHARES_1, VERSION_1, Catalogue, How, PriceRow, Revenue
from domain.genesis import DAY_US, HOUR_US, MINUTE_US, Parameters
from domain.node import Amount

START_US: Final = 1_767_225_600_000_000  # 2026-01-01 00:00:00 UTC
BEAT_US: Final = 10 * MINUTE_US
DAYS: Final = 32
SHARDS: Final = 4
REGION: Final = "eu-north"
NANO: Final = 1_000_000_000

#: Minutes stand for weeks: everything happens in 32 days of logical time.
PARAMETERS: Final = Parameters(
    beat_us=BEAT_US,
    grace_us=30 * MINUTE_US,
    grace_max_us=30 * MINUTE_US,
    usage_window_us=HOUR_US,
    round_us=10 * MINUTE_US,
    ready_within_us=HOUR_US,
    closing_us=2 * HOUR_US,
    node_down_us=2 * HOUR_US,
    idle_us=HOUR_US,
    sla_window_us=30 * DAY_US,
    epoch_us=DAY_US,
    attestation_us=60 * DAY_US,
)

#: The fourth device class: places on hosts for containers, VMs, functions and edge, which are
#: billed by their own rows and not by device time (R2.2).
HOST: Final = PriceRow(
    resource="cpu.epyc",
    how=How.ALLOCATED,
    unit=3_600_000_000,
    price_nano=0,
    revenue=Revenue.COMPUTE,
    market=True,
)
#: A place on a shared inference endpoint: its tokens are billed, its device time is not (R2.2).
SLOT: Final = PriceRow(
    resource="inference.slot",
    how=How.ALLOCATED,
    unit=3_600_000_000,
    price_nano=0,
    revenue=Revenue.COMPUTE,
    market=True,
)
CATALOGUE: Final = (*VERSION_1, HOST, SLOT)
PRICES: Final = Catalogue(CATALOGUE, SHARES_1)
CLASSES: Final = ("gpu.rtx4090", "gpu.a100-80gb", "gpu.h100", "cpu.epyc")


@dataclass(frozen=True, slots=True)
class ProviderPart:
    """A provider of the cast; ``discount_pct`` off the list price is its ask."""

    name: str
    location: str
    discount_pct: int
    uptime_ppm: int


PROVIDERS: Final = (
    ProviderPart("north", "Luleå", 10, 990_000),
    ProviderPart("south", "Sevilla", 20, 990_000),
    ProviderPart("west", "Galway", 5, 995_000),
)
BUYERS: Final = ("alice", "bob", "carol", "dave", "erin", "frank")

#: What each class of node has beside its devices.
CAPACITY: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    "gpu.rtx4090": (
        ("gpu.rtx4090", 4_000),
        ("container.cpu", 32_000),
        ("container.memory", 128_000),
        ("storage.hot", 2_000_000),
    ),
    "gpu.a100-80gb": (
        ("gpu.a100-80gb", 8_000),
        ("inference.slot", 8_000),
        ("container.cpu", 64_000),
        ("container.memory", 512_000),
        ("storage.hot", 8_000_000),
    ),
    "gpu.h100": (
        ("gpu.h100", 8_000),
        ("container.cpu", 96_000),
        ("container.memory", 1_000_000),
        ("storage.hot", 16_000_000),
    ),
    "cpu.epyc": (
        ("cpu.epyc", 16_000),
        ("gpu.vram", 48_000),
        ("container.cpu", 128_000),
        ("container.memory", 1_000_000),
        ("container.ephemeral", 4_000_000),
        ("storage.hot", 8_000_000),
        ("edge.cache", 1_000_000),
        ("function.provisioned", 256_000),
        *((row.resource, 16_000) for row in VERSION_1 if row.resource.startswith("vm.")),
    ),
}

RTX_FAILS_US: Final = 10 * DAY_US
RTX_BACK_US: Final = 13 * DAY_US
LIES_US: Final = 12 * DAY_US + 6 * HOUR_US
CLAIM_DAY: Final = 20


@dataclass(frozen=True, slots=True)
class Want:
    """A bid of the script: who, when, what; ``rates`` are metered base units per second."""

    buyer: str
    day: int
    row: BidRow
    rates: tuple[tuple[str, int], ...] = ()
    story: str = ""


def _bid(
    resource: str,
    milli: int,
    days: int,
    *,
    allocations: tuple[tuple[str, int], ...] = (),
    rates: tuple[tuple[str, int], ...] = (),
    budget: int = 0,
    lot: int = 0,
) -> BidRow:
    row = PRICES.row(resource)
    assert row is not None
    return BidRow(
        resource=resource,
        region=REGION,
        quantity_milli=milli,
        lot_milli=lot,
        limit_nano=row.price_nano,
        term_us=days * DAY_US,
        allocations=tuple(Amount(resource=name, amount=amount) for name, amount in allocations),
        metered=tuple(MeteredLimit(resource=name, per_second=10 * rate) for name, rate in rates),
        usage_budget_nano=budget,
    )


_EGRESS: Final = (("network.egress", 250_000), ("network.ingress", 1_000_000))
_TOKENS: Final = (("inference.tokens", 900), ("network.egress", 40_000))
_FUNCTION: Final = (
    ("function.invocations", 40),
    ("function.duration", 2_048_000),
    ("function.http-gateway", 40),
    ("function.event-bridge", 5),
)
_EDGE: Final = (
    ("edge.invocations", 120),
    ("edge.duration", 1_536_000),
    ("edge.bandwidth", 600_000),
    ("edge.transcoding", 500),
)
_CONTAINERS: Final = (
    ("container.cpu", 8_000),
    ("container.memory", 32_000),
    ("container.ephemeral", 100_000),
    ("gpu.vram", 8_000),
    ("network.load-balancer", 1_000),
    ("network.static-ip", 1_000),
)
_VMS: Final = tuple((row.resource, 1_000) for row in VERSION_1 if row.resource.startswith("vm."))


def script() -> tuple[Want, ...]:
    """Every bid of the story, in order of day; rows of one day stand in order of buyer."""
    wants: list[Want] = []
    for week in range(4):
        day = 1 + 7 * week
        wants.append(
            Want(
                "alice",
                day,
                _bid(
                    "gpu.h100",
                    8_000,
                    5,
                    allocations=(("storage.hot", 2_000_000),),
                    rates=_EGRESS,
                    budget=40 * NANO,
                ),
                _EGRESS,
                "trains on 8 H100 for five days",
            )
        )
        wants.append(
            Want(
                "bob",
                day,
                _bid("inference.slot", 2_000, 6, rates=_TOKENS, budget=80 * NANO, lot=1_000),
                _TOKENS,
                "serves tokens from two shared endpoints",
            )
        )
        wants.append(
            Want(
                "carol",
                day,
                _bid(
                    "cpu.epyc",
                    2_000,
                    6,
                    allocations=_CONTAINERS,
                    rates=_EGRESS,
                    budget=20 * NANO,
                ),
                _EGRESS,
                "runs containers behind a load balancer",
            )
        )
    wants.extend(
        Want(
            "frank",
            day,
            _bid(
                "gpu.rtx4090",
                1_000,
                2,
                rates=_EGRESS,
                budget=3 * NANO,
            ),
            _EGRESS,
            "renders on one RTX 4090" if day == 1 else "",
        )
        for day in range(1, 30, 2)
    )
    wants.append(
        Want(
            "bob",
            5,
            _bid("gpu.a100-80gb", 4_000, 10, rates=_EGRESS, budget=40 * NANO, lot=2_000),
            _EGRESS,
            "fine-tunes on two pairs of A100",
        )
    )
    wants.append(
        Want(
            "dave",
            2,
            _bid("cpu.epyc", 1_000, 20, allocations=_VMS),
            (),
            "keeps one VM of every size for twenty days",
        )
    )
    wants.append(
        Want(
            "erin",
            3,
            _bid(
                "cpu.epyc",
                1_000,
                12,
                allocations=(("function.provisioned", 4_000),),
                rates=_FUNCTION,
                budget=90 * NANO,
            ),
            _FUNCTION,
            "deploys functions with provisioned memory",
        )
    )
    wants.append(
        Want(
            "erin",
            4,
            _bid(
                "cpu.epyc",
                1_000,
                12,
                allocations=(("edge.cache", 50_000),),
                rates=_EDGE,
                budget=400 * NANO,
            ),
            _EDGE,
            "deploys to the edge with a cache",
        )
    )
    wants.append(
        Want(
            "frank",
            6,
            _bid("inference.slot", 1_000, 8, rates=_TOKENS, budget=NANO),
            _TOKENS,
            "asks for tokens on a budget that will not last",
        )
    )
    order = {name: number for number, name in enumerate(BUYERS)}
    return tuple(sorted(wants, key=lambda want: (want.day, order[want.buyer])))
