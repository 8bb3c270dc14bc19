"""The tables of the read models, for SQLite and PostgreSQL alike.

Ids are bytes; money that may pass 64 bits is ``Wide``; lists that nobody filters by are JSON.
``position`` is the leaf number of the event that made the row, so it orders a table for ever: lists
are paged by it. Columns are named like the fields of the events that fill them.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine

#: Raised with every change of a table or a fold: a read model of another version is made anew.
VERSION: Final = 1

METADATA: Final = MetaData()


class Wide(TypeDecorator[int]):
    """A signed 128-bit integer: NUMERIC(39) in PostgreSQL, decimal text in SQLite (R1.6)."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """NUMERIC where the database has whole numbers of that width."""
        wide: TypeEngine[Any] = Numeric(39, 0) if dialect.name == "postgresql" else String(40)
        return dialect.type_descriptor(wide)

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """To the database."""
        return value if value is None or dialect.name == "postgresql" else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """From the database."""
        return None if value is None else int(value)


class Octets(LargeBinary):
    """Bytes as they are: both drivers take them, and a wrapper for each costs more than all else."""

    def bind_processor(self, dialect: Dialect) -> None:
        """Nothing to do on the way in."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """Nor on the way out."""


def _table(name: str, *columns: Column[Any] | Index) -> Table:
    return Table(name, METADATA, *columns, sqlite_with_rowid=False)


def _id(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    return Column(name, Octets, primary_key=key, nullable=null)


def _int(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    # Never a serial column: every key comes from the ledger.
    return Column(name, BigInteger, primary_key=key, nullable=null, autoincrement=False)


def _text(name: str, *, key: bool = False, null: bool = False) -> Column[Any]:
    return Column(name, String, primary_key=key, nullable=null)


def _wide(name: str, *, null: bool = False) -> Column[Any]:
    return Column(name, Wide, nullable=null)


def _bool(name: str, *, null: bool = False) -> Column[Any]:
    return Column(name, Boolean, nullable=null)


def _json(name: str) -> Column[Any]:
    return Column(name, JSON, nullable=False)


# The read model itself

META: Final = _table("meta", _text("name", key=True), _text("value"))

#: How far each ledger was followed. One row is one application of the tracking recorder.
POSITION: Final = _table(
    "position",
    _text("application", key=True),
    _int("notification_id", null=True),
    _int("height"),
    _id("hash"),
    _int("head_offset"),
    _int("next_offset"),
    _int("time_us"),
    _id("writer"),
    _json("noise"),
    _int("noise_count"),
    _text("stopped", null=True),
)

#: How far a ledger has consumed its inputs, by its commits' runs.
CONSUMED: Final = _table(
    "consumed",
    _text("application", key=True),
    _text("topic", key=True),
    _int("partition", key=True),
    _int("next"),
)

# Settings

PARAMETER: Final = _table(
    "parameter",
    _text("name", key=True),
    _int("value"),
    _int("changed_us"),
    _int("position"),
)
CATALOGUE: Final = _table(
    "catalogue",
    _int("number", key=True),
    _text("resource"),
    _text("how"),
    _int("unit"),
    _int("price_nano"),
    _text("revenue", null=True),
    _bool("market"),
    _int("since_us"),
    _int("position"),
)
SHARE: Final = _table(
    "share", _text("revenue", key=True), _int("protocol_num"), _int("protocol_den")
)

# Accounts, keys, money

ACCOUNT: Final = _table(
    "account",
    _id("account", key=True),
    _id("key"),
    _id("owner"),
    _id("payee"),
    _int("opened_us"),
    _int("position"),
    Index("account_by_position", "position"),
)
KEY: Final = _table(
    "key",
    _id("key", key=True),
    _text("role"),
    _id("account"),
    _id("node", null=True),
    _int("registered_us"),
    _int("revoked_us", null=True),
    _int("position"),
    Index("key_by_account", "account"),
)
BALANCE: Final = _table(
    "balance",
    _text("purse", key=True),
    _id("owner", key=True),
    _id("account"),
    _wide("amount_nano"),
    Index("balance_by_account", "account"),
    Index("balance_by_owner", "owner"),
)
POSTING: Final = _table(
    "posting",
    _int("position", key=True),
    _int("row", key=True),
    _int("at_us"),
    _text("event"),
    _text("purse"),
    _id("owner"),
    _id("account"),
    _wide("amount_nano"),
    _wide("balance_nano"),
    Index("posting_by_account", "account", "position", "row"),
)
CLAIM: Final = _table(
    "claim",
    _int("position", key=True),
    _id("account"),
    _wide("amount_nano"),
    _wide("cumulative_nano"),
    _id("transaction"),
    _int("at_us"),
    Index("claim_by_account", "account", "position"),
)

# Orders and rounds

INSTRUMENT: Final = _table(
    "instrument",
    _id("instrument", key=True),
    _text("resource"),
    _text("region"),
    _int("round"),
    _bool("open"),
    _int("clears_us", null=True),
    _int("cleared_position"),
    _int("cleared_us", null=True),
    _int("reference_nano", null=True),
    _int("price_nano", null=True),
    _int("traded_us", null=True),
    _int("volume_milli"),
    _int("position"),
)
OFFER: Final = _table(
    "offer",
    _id("offer", key=True),
    _int("order_no"),
    _id("instrument"),
    _text("resource"),
    _text("region"),
    _id("node"),
    _id("provider"),
    _id("account"),
    _int("quantity_milli"),
    _int("leased_milli"),
    _int("ask_nano"),
    _bool("interruptible"),
    _int("notice_us"),
    _int("placed_us"),
    _int("withdrawn_us", null=True),
    _text("state"),
    _int("position"),
    Index("offer_by_position", "position"),
    Index("offer_in_book", "instrument", "state"),
)
BID: Final = _table(
    "bid",
    _id("bid", key=True),
    _int("order_no"),
    _id("instrument"),
    _text("resource"),
    _text("region"),
    _id("account"),
    _int("quantity_milli"),
    _int("lot_milli"),
    _int("open_lots"),
    _int("limit_nano"),
    _int("term_us"),
    _json("allocations"),
    _json("metered"),
    _int("lot_allocated_nano"),
    _int("lot_usage_nano"),
    _bool("reserved"),
    _id("specification"),
    _int("placed_us"),
    _int("done_us", null=True),
    _text("state"),
    _int("position"),
    Index("bid_by_position", "position"),
    Index("bid_in_book", "instrument", "state"),
)
ROUND: Final = _table(
    "round",
    _id("instrument", key=True),
    _int("number", key=True),
    _text("resource"),
    _text("region"),
    _int("opened_us"),
    _int("clears_us"),
    _int("cleared_us", null=True),
    _int("reference_nano", null=True),
    _int("low_nano", null=True),
    _int("high_nano", null=True),
    _int("price_nano", null=True),
    _int("demand_milli", null=True),
    _int("supply_milli", null=True),
    _int("volume_milli", null=True),
    _int("position"),
    Index("round_by_position", "position"),
)
TRADE: Final = _table(
    "trade",
    _int("position", key=True),
    _int("row", key=True),
    _id("instrument"),
    _int("number"),
    _id("bid"),
    _id("offer"),
    _id("node"),
    _int("lots"),
    _int("quantity_milli"),
    _int("price_nano"),
    _id("lease"),
    _int("at_us"),
    Index("trade_by_round", "instrument", "number"),
)

# Leases

LEASE: Final = _table(
    "lease",
    _id("lease", key=True),
    _id("bid"),
    _id("offer"),
    _id("instrument"),
    _int("round"),
    _id("buyer"),
    _id("provider"),
    _id("account"),
    _id("node"),
    _text("resource"),
    _int("device_milli"),
    _int("price_nano"),
    _int("term_us"),
    _int("ready_by_us"),
    _json("allocations"),
    _json("metered"),
    _bool("interruptible"),
    _int("notice_us"),
    _bool("reserved"),
    _int("escrow_allocated_nano"),
    _int("escrow_usage_nano"),
    _wide("topped_up_nano"),
    _text("state"),
    _text("reason", null=True),
    _int("opened_us"),
    _int("ready_us", null=True),
    _int("expires_us", null=True),
    _int("reclaim_us", null=True),
    _int("ended_us", null=True),
    _int("closing_us", null=True),
    _int("closed_us", null=True),
    _int("window_end_us", null=True),
    _int("covered_us"),
    _bool("final"),
    _wide("provider_nano"),
    _wide("protocol_nano"),
    _int("early_nano"),
    _wide("refund_nano"),
    _int("position"),
    Index("lease_by_position", "position"),
    Index("lease_by_buyer", "buyer", "position"),
    Index("lease_by_provider", "provider", "position"),
    Index("lease_by_node", "node", "position"),
    Index("lease_by_state", "state", "position"),
)
LEASE_LINE: Final = _table(
    "lease_line",
    _id("lease", key=True),
    _text("resource", key=True),
    _int("quantity"),
    _wide("charged_nano"),
    _wide("posted_nano"),
    _wide("protocol_nano"),
    _wide("unfunded_nano"),
    _int("window_end_us"),
)

# Providers and nodes

PROVIDER: Final = _table(
    "provider",
    _id("provider", key=True),
    _id("account"),
    _text("location"),
    _id("network"),
    _int("uptime_ppm"),
    _int("response_time_ms"),
    _int("durability_pp12"),
    _int("penalty_ppm"),
    _int("registered_us"),
    _int("admitted_us", null=True),
    _wide("required_nano"),
    _int("nodes"),
    _int("leases"),
    _wide("posted_nano"),
    _wide("matured_nano"),
    _int("windows"),
    _int("obliged_us"),
    _int("down_us"),
    _int("excess_us"),
    _int("slashes"),
    _wide("slashed_nano"),
    _wide("shortfall_nano"),
    _int("position"),
    Index("provider_by_position", "position"),
)
NODE: Final = _table(
    "node",
    _id("node", key=True),
    _id("provider"),
    _id("account"),
    _id("key"),
    _text("region"),
    _json("identities"),
    _int("manifest_version"),
    _int("beat_us"),
    _int("grace_us"),
    _wide("required_nano"),
    _int("registered_us"),
    _int("retired_us", null=True),
    _text("health"),
    _int("down_since_us", null=True),
    _int("up_us", null=True),
    _int("health_us", null=True),
    _int("position"),
    Index("node_by_position", "position"),
    Index("node_by_provider", "provider", "position"),
)
NODE_CAPACITY: Final = _table(
    "node_capacity",
    _id("node", key=True),
    _text("resource", key=True),
    _int("amount"),
    _int("leased"),
)
ATTESTATION: Final = _table(
    "attestation",
    _int("position", key=True),
    _id("node"),
    _id("attestor"),
    _json("leaves"),
    _int("expires_us"),
    _int("at_us"),
    Index("attestation_by_node", "node", "position"),
)
SLA_WINDOW: Final = _table(
    "sla_window",
    _id("node", key=True),
    _int("start_us", key=True),
    _id("provider"),
    _int("end_us"),
    _int("obliged_us"),
    _int("down_us"),
    _int("allowance_us"),
    _int("excess_us"),
    _wide("base_nano"),
    _wide("required_nano"),
    _wide("required_all_nano"),
    _wide("slash_nano"),
    _id("slash", null=True),
    _int("at_us"),
    _int("position"),
    Index("sla_window_by_provider", "provider", "position"),
)
SLASH: Final = _table(
    "slash",
    _id("slash", key=True),
    _id("provider"),
    _id("node", null=True),
    _text("fault"),
    _int("fault_us"),
    _wide("base_nano"),
    _wide("due_nano"),
    _wide("taken_nano"),
    _wide("shortfall_nano"),
    _id("pot", null=True),
    _int("at_us"),
    _int("position"),
    Index("slash_by_provider", "provider", "position"),
)
POT: Final = _table(
    "pot",
    _id("pot", key=True),
    _id("provider"),
    _id("account"),
    _wide("frozen_nano"),
    _wide("slashed_nano", null=True),
    _wide("thawed_nano", null=True),
    _int("opened_us"),
    _int("joins_until_us"),
    _int("divides_us"),
    _int("divided_us", null=True),
    _int("position"),
    Index("pot_by_provider", "provider", "position"),
)
EVIDENCE: Final = _table(
    "evidence",
    _int("position", key=True),
    _id("pot"),
    _id("slash"),
    _id("provider"),
    _id("node"),
    _text("fault"),
    _int("fault_us"),
    _id("lease", null=True),
    _id("key"),
    _id("first"),
    _id("second"),
    _wide("base_nano"),
    _wide("due_nano"),
    _int("at_us"),
    Index("evidence_by_pot", "pot", "position"),
)

# Epochs, as the market cut them

EPOCH: Final = _table(
    "epoch",
    _int("number", key=True),
    _int("at_us"),
    _int("height"),
    _int("accounts"),
    _wide("added_nano"),
    _wide("deposited_nano"),
    _wide("authorised_nano"),
    _wide("paid_nano"),
    _id("state_root"),
    _json("positions"),
    _int("anchored_us", null=True),
    _id("anchored", null=True),
    _int("block", null=True),
    _id("transaction", null=True),
    _int("position"),
)
PAYABLE: Final = _table(
    "payable",
    _int("epoch", key=True),
    _id("account", key=True),
    _id("payee"),
    _wide("added_nano"),
    _wide("cumulative_nano"),
    Index("payable_by_account", "account", "epoch"),
)

# Settlement's own

CHECKPOINT: Final = _table(
    "checkpoint",
    _int("epoch", key=True),
    _int("at_us"),
    _json("roots"),
    _id("ledgers_root"),
    _id("state_root"),
    _id("payout_root"),
    _int("payout_count"),
    _wide("deposited_nano"),
    _wide("authorised_nano"),
    _wide("paid_nano"),
    _id("previous"),
    _id("checkpoint"),
    _int("anchored_us", null=True),
    _int("position"),
)
PAYOUT_LEAF: Final = _table(
    "payout_leaf",
    _int("epoch", key=True),
    _id("account", key=True),
    _id("payee"),
    _wide("cumulative_nano"),
)

# Metering's own

METER_NODE: Final = _table(
    "meter_node",
    _id("node", key=True),
    _int("shard"),
    _bool("up"),
    _int("since_us", null=True),
    _int("changed_us"),
)
METER_STATEMENT: Final = _table(
    "meter_statement",
    _id("lease", key=True),
    _int("shard"),
    _int("window_end_us"),
    _int("covered_us"),
    _bool("final"),
    _json("quantities"),
    _int("at_us"),
)
CONTRADICTION: Final = _table(
    "contradiction",
    _int("shard", key=True),
    _int("position", key=True),
    _id("node"),
    _id("lease"),
    _text("resource"),
    _int("generation"),
    _int("time_us"),
    _id("key"),
    _int("first_total"),
    _int("second_total"),
    _id("first"),
    _id("second"),
    _int("at_us"),
)

# Answers and history, of every ledger

ANSWER: Final = _table(
    "answer",
    _int("ledger", key=True),
    _id("key", key=True),
    _int("session", key=True),
    _int("number", key=True),
    _int("shard"),
    _int("height"),
    _id("digest"),
    _text("kind"),
    _int("code"),
    _text("detail"),
    _json("rows"),
    _int("at_us"),
    _int("position"),
)
HISTORY: Final = Table(
    "history",
    METADATA,
    Column("ledger", Integer, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    _int("position", key=True),
    _int("height"),
    _int("at_us"),
    _id("aggregate"),
    _int("version"),
    _int("schema"),
    _id("payload"),
    # Set for orders: hidden until a round of this instrument has cleared (design 6).
    _id("sealed_by", null=True),
    Index("history_by_aggregate", "ledger", "shard", "aggregate", "position"),
    Index("history_by_schema", "ledger", "shard", "schema", "position"),
    sqlite_with_rowid=False,
)
