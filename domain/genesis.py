"""The genesis: everything that is decided before the first event, and every parameter of R10.

The genesis document's bytes are signed over by nobody and named by everybody: its SHA-256 is in
every signed record and in every commit, so nothing can be replayed on another network.
"""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import Annotated, Final

from domain.catalogue import SHARES_1, VERSION_1, PriceRow, Share
from domain.ids import Address, PublicKey
from domain.record import record

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US


class TimeSource(Enum):
    """Broker: append time (production). Logical: the last tick in the partition (replay, tests)."""

    BROKER = "BROKER"
    LOGICAL = "LOGICAL"


class Role(Enum):
    """What a key may do (R6.7)."""

    OWNER = "OWNER"
    NODE = "NODE"
    GATEWAY = "GATEWAY"
    ATTESTOR = "ATTESTOR"
    ARBITER = "ARBITER"
    OPERATOR = "OPERATOR"
    CLOCK = "CLOCK"
    WATCHER = "WATCHER"


@record("synor.ledger.v1.Parameters")
class Parameters:
    """Every number of the rules (R10). Times in µs. Bounds are in ``BOUNDS``."""

    usage_window_us: Annotated[int, "length of a usage window (R4.6)"] = 60 * SECOND_US
    closing_us: Annotated[int, "from a lease's end to its final statement (R4.6)"] = 10 * MINUTE_US
    late_us: Annotated[int, "a reading older than this is refused (R4.6)"] = DAY_US
    early_us: Annotated[int, "a reading further ahead than this is refused"] = 5 * MINUTE_US
    beat_us: Annotated[int, "default interval of beats (R5.1)"] = 10 * SECOND_US
    grace_us: Annotated[int, "default grace before a silent node is down (R5.1)"] = 30 * SECOND_US
    grace_max_us: Annotated[int, "largest grace a node may register"] = 30 * SECOND_US
    sla_window_us: Annotated[int, "length of an SLA window (R5)"] = 30 * DAY_US
    unbonding_us: Annotated[int, "from unbonding to free (R6.3)"] = 32 * DAY_US
    maintenance_notice_us: Annotated[int, "maintenance is announced this far ahead"] = DAY_US
    maintenance_cap_us: Annotated[int, "maintenance per node and window at most"] = 8 * HOUR_US
    reclaim_notice_us: Annotated[int, "shortest notice of a reclaim (R8.5)"] = 2 * MINUTE_US
    minimum_charge_us: Annotated[int, "buyer's close: least charged time (R8.4)"] = 10 * MINUTE_US
    first_hour_us: Annotated[int, "device time accrued before it is posted (R8.3)"] = HOUR_US
    early_ppm: Annotated[int, "of the device time left: leaving a reserved lease (R8.4)"] = 100_000
    early_within_us: Annotated[int, "of the time left at most so much counts"] = 240 * HOUR_US
    broken_within_us: Annotated[int, "a broken reservation binds for this long (R8.5)"] = DAY_US
    bonus_bps: Annotated[int, "SLA bonus in basis points (R3.3)"] = 100
    attestation_us: Annotated[int, "longest life of an attestation (R6.4)"] = 30 * DAY_US
    input_bytes: Annotated[int, "largest input record"] = 448 * 1024
    idle_us: Annotated[int, "a ledger without events commits at least this often"] = 60 * SECOND_US
    round_us: Annotated[int, "from a round's opening to its clearing (R8)"] = 5 * SECOND_US
    epoch_us: Annotated[int, "length of an epoch (R9.1)"] = DAY_US
    maturity_us: Annotated[int, "pending shares mature after this (R4.9)"] = DAY_US
    evidence_age_us: Annotated[int, "older evidence is refused (R5.7)"] = 30 * DAY_US
    pot_us: Annotated[int, "evidence joins a pot for this long (R5.8)"] = DAY_US
    dispute_us: Annotated[int, "disputes on a pot are heard for this long"] = DAY_US
    verdict_us: Annotated[int, "no verdict in this time: draw"] = 72 * HOUR_US
    challenge_us: Annotated[int, "time to answer a storage challenge"] = HOUR_US
    node_down_us: Annotated[int, "node down too long ends its leases (R8.5)"] = 15 * MINUTE_US
    ready_within_us: Annotated[int, "a lease not ready by then has failed (R4.4)"] = 10 * MINUTE_US
    reject_within_us: Annotated[int, "the buyer may reject within this of ready"] = 10 * MINUTE_US
    rejections: Annotated[int, "leases that a buyer may reject in a time (R4.4)"] = 3
    rejections_within_us: Annotated[int, "the time in which rejections are counted"] = DAY_US
    stake_hours: Annotated[int, "required stake in hours of list price (R6.2)"] = 400
    staking_reward_ppb: Annotated[int, "staking reward per second in 10^-9 (R3.2)"] = 0
    price_tick_nano: Annotated[int, "tick of prices per device·hour (R8.1)"] = 1000
    reference_window_us: Annotated[int, "trades that make the reference (R8.1)"] = DAY_US
    reference_move_ppm: Annotated[int, "largest move of the reference a day"] = 200_000
    batch_rows: Annotated[int, "rows per telemetry batch"] = 10_000
    command_rows: Annotated[int, "rows per command batch"] = 1_000
    term_max_us: Annotated[int, "longest term of a lease (R2.3)"] = 90 * DAY_US
    live_orders: Annotated[int, "live orders per beneficial owner (R8.7)"] = 1000
    price_rows: Annotated[int, "rows of the price list at most (R2.3)"] = 1000
    limit_slack_us: Annotated[int, "time that a lease's limits allow for beside its own (R4.8)"] = (
        60 * SECOND_US
    )
    generations: Annotated[int, "generations of a counter (R4.7)"] = 64
    generations_a_day: Annotated[int, "new generations per lease in a time (R4.7)"] = 10
    generations_within_us: Annotated[int, "the time in which they are counted"] = DAY_US
    slash_hour_ppm: Annotated[int, "of stake per hour of excess downtime (R5.4)"] = 10_000
    guilty_nodes: Annotated[int, "so many guilty nodes in a window take all stake (R5.6)"] = 3
    guilty_ppm: Annotated[int, "a larger part of its nodes guilty takes all stake (R5.6)"] = 500_000
    stake_parts: Annotated[int, "parts of a provider's stake at most: tranches and remainders"] = (
        1000
    )
    order_rows: Annotated[int, "resources of an order beside its device, of each kind"] = 32
    node_rows: Annotated[int, "resources of a node's capacity"] = 32
    node_devices: Annotated[int, "device identities of a node"] = 64
    region_length: Annotated[int, "characters of a region's name"] = 64
    location_length: Annotated[int, "characters of a provider's location"] = 100
    uptime_min_ppm: Annotated[int, "lowest uptime that a provider may promise (R5)"] = 900_000
    uptime_max_ppm: Annotated[int, "highest uptime that a provider may promise"] = 999_999
    session_ahead_us: Annotated[int, "a session may start this far ahead of now"] = 5 * MINUTE_US


#: The largest number of rejections that anyone has to remember of a buyer.
REJECTIONS_MAX: Final = 100

_LONGEST_US: Final = 400 * DAY_US

#: Bounds of every parameter, wide on purpose: a replayed trace may need a beat of a day. A period
#: that begins anew at its end has a shortest length, so that time always gets past it.
BOUNDS: Final[dict[str, tuple[int, int]]] = {
    **{f.name: (0, _LONGEST_US) for f in fields(Parameters) if f.name.endswith("_us")},
    "usage_window_us": (SECOND_US, _LONGEST_US),
    "idle_us": (SECOND_US, _LONGEST_US),
    "epoch_us": (SECOND_US, _LONGEST_US),
    "round_us": (SECOND_US // 100, _LONGEST_US),
    "grace_us": (SECOND_US // 10, _LONGEST_US),
    "sla_window_us": (MINUTE_US, _LONGEST_US),
    "bonus_bps": (0, 500),
    "input_bytes": (4096, 448 * 1024),
    "stake_hours": (0, 100_000),
    "staking_reward_ppb": (0, 1_000_000),
    "price_tick_nano": (1, 1_000_000_000),
    "reference_move_ppm": (0, 1_000_000),
    "batch_rows": (1, 10_000),
    "command_rows": (1, 1_000),
    "live_orders": (1, 1_000_000),
    "price_rows": (1, 10_000),
    "generations": (1, 64),
    "generations_a_day": (1, 64),
    "slash_hour_ppm": (0, 1_000_000),
    "early_ppm": (0, 1_000_000),
    "rejections": (0, REJECTIONS_MAX),
    "guilty_nodes": (1, 1_000_000),
    "guilty_ppm": (0, 1_000_000),
    "stake_parts": (2, 1_000),  # one event names them all
    "order_rows": (1, 64),
    "node_rows": (1, 64),
    "node_devices": (1, 256),
    "region_length": (1, 256),
    "location_length": (1, 1_000),
    "uptime_min_ppm": (0, 999_999),
    "uptime_max_ppm": (0, 999_999),
}


def broken_bounds(p: Parameters) -> tuple[str, ...]:
    """What is wrong with a set of parameters, as sentences; empty when it may be used (R10)."""
    wrong = [
        f"{name} = {getattr(p, name)} is not within {low}..{high}"
        for name, (low, high) in BOUNDS.items()
        if not low <= getattr(p, name) <= high
    ]
    if p.uptime_max_ppm < p.uptime_min_ppm:
        wrong.append("uptime_max_ppm must be at least uptime_min_ppm")
    if p.grace_max_us < p.grace_us:
        wrong.append("grace_max_us must be at least grace_us")
    if p.node_down_us < p.grace_max_us:
        wrong.append("node_down_us must be at least the largest grace")
    if p.closing_us < 2 * p.grace_max_us:
        wrong.append("closing_us must be at least twice the largest grace")
    if p.unbonding_us < max(p.evidence_age_us, p.sla_window_us) + p.dispute_us + p.epoch_us:
        wrong.append("unbonding_us must cover max(evidence age, SLA window) + dispute + epoch")
    return tuple(wrong)


@record("synor.ledger.v1.GenesisKey")
class GenesisKey:
    """A key that is in force from the start."""

    key: Annotated[PublicKey, "Ed25519 public key"]
    role: Annotated[Role, "what it may do"]


@record("synor.ledger.v1.Genesis")
class Genesis:
    """The document whose SHA-256 names the network. P and topic ids are in ``LogBound`` instead."""

    network: Annotated[str, "name for people"]
    nonce: Annotated[int, "makes two networks with equal settings differ"]
    start_us: Annotated[int, "effective time of the first commit, µs UTC; epochs count from it"]
    time_source: Annotated[TimeSource, "broker (production) or logical (replay)"]
    rules_version: Annotated[int, "version of the rules that is in force from the start"]
    market_writer: Annotated[PublicKey, "key that signs the market ledger's commits"]
    metering_writer: Annotated[PublicKey, "key that signs the metering ledgers' commits"]
    settlement_writer: Annotated[PublicKey, "key that signs the settlement ledger's commits"]
    keys: Annotated[tuple[GenesisKey, ...], "clock, watcher, operator, attestors, arbiters"]
    chain_id: Annotated[int, "chain id of the L1; 0 where a replay runs none"]
    vault: Annotated[Address, "address of the settlement vault; zero where a replay runs none"]
    parameters: Annotated[Parameters, "every number of the rules"]
    catalogue: Annotated[tuple[PriceRow, ...], "price list, in row order"] = VERSION_1
    shares: Annotated[tuple[Share, ...], "split of each revenue class"] = SHARES_1
