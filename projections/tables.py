"""The tables of the read models.

Ids are bytes; money that may pass 64 bits is ``Wide``; lists that nobody filters by are JSON.
``position`` is the leaf number of the event that made the row, so it orders a table for ever: lists
are paged by it. Columns are named like the fields of the events that fill them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Index

from projections.columns import integer, json, octets, table, text, truth, wide

#: Raised with every change of a table or a fold: a read model of another version is made anew.
VERSION: Final = 5

# The read model itself

META: Final = table("meta", text("name", key=True), text("value"))

#: How far each ledger was followed. One row is one application of the tracking recorder.
POSITION: Final = table(
    "position",
    text("application", key=True),
    integer("notification_id", null=True),
    integer("height"),
    octets("hash"),
    integer("head_offset"),
    integer("next_offset"),
    integer("time_us"),
    octets("writer"),
    json("noise"),
    integer("noise_count"),
    text("stopped", null=True),
)

#: How far a ledger has consumed its inputs, by its commits' runs.
CONSUMED: Final = table(
    "consumed",
    text("application", key=True),
    text("topic", key=True),
    integer("partition", key=True),
    integer("next"),
)

# Settings

PARAMETER: Final = table(
    "parameter",
    text("name", key=True),
    integer("value"),
    integer("changed_us"),
    integer("position"),
)
CATALOGUE: Final = table(
    "catalogue",
    integer("number", key=True),
    text("resource"),
    text("how"),
    integer("unit"),
    integer("price_nano"),
    text("revenue", null=True),
    truth("market"),
    integer("since_us"),
    integer("position"),
)
SHARE: Final = table(
    "share", text("revenue", key=True), integer("protocol_num"), integer("protocol_den")
)

# Accounts, keys, money

ACCOUNT: Final = table(
    "account",
    octets("account", key=True),
    octets("key"),
    octets("owner"),
    octets("payee"),
    integer("opened_us"),
    integer("position"),
    Index("account_by_position", "position"),
)
KEY: Final = table(
    "key",
    octets("key", key=True),
    text("role"),
    octets("account"),
    octets("node", null=True),
    integer("registered_us"),
    integer("revoked_us", null=True),
    integer("position"),
    Index("key_by_account", "account"),
)
BALANCE: Final = table(
    "balance",
    text("purse", key=True),
    octets("owner", key=True),
    octets("account"),
    wide("amount_nano"),
    Index("balance_by_account", "account"),
    Index("balance_by_owner", "owner"),
)
POSTING: Final = table(
    "posting",
    integer("position", key=True),
    integer("row", key=True),
    integer("at_us"),
    text("event"),
    text("purse"),
    octets("owner"),
    octets("account"),
    wide("amount_nano"),
    wide("balance_nano"),
    Index("posting_by_account", "account", "position", "row"),
)
CLAIM: Final = table(
    "claim",
    integer("position", key=True),
    octets("account"),
    wide("amount_nano"),
    wide("cumulative_nano"),
    octets("transaction"),
    integer("at_us"),
    Index("claim_by_account", "account", "position"),
)

# Orders and rounds

INSTRUMENT: Final = table(
    "instrument",
    octets("instrument", key=True),
    text("resource"),
    text("region"),
    integer("round"),
    truth("open"),
    integer("clears_us", null=True),
    integer("cleared_position"),
    integer("cleared_us", null=True),
    integer("reference_nano", null=True),
    integer("price_nano", null=True),
    integer("traded_us", null=True),
    integer("volume_milli"),
    integer("position"),
)
OFFER: Final = table(
    "offer",
    octets("offer", key=True),
    integer("order_no"),
    octets("instrument"),
    text("resource"),
    text("region"),
    octets("node"),
    octets("provider"),
    octets("account"),
    integer("quantity_milli"),
    integer("leased_milli"),
    integer("ask_nano"),
    truth("interruptible"),
    integer("notice_us"),
    integer("placed_us"),
    integer("withdrawn_us", null=True),
    text("state"),
    integer("position"),
    Index("offer_by_position", "position"),
    Index("offer_in_book", "instrument", "state"),
)
BID: Final = table(
    "bid",
    octets("bid", key=True),
    integer("order_no"),
    octets("instrument"),
    text("resource"),
    text("region"),
    octets("account"),
    integer("quantity_milli"),
    integer("lot_milli"),
    integer("open_lots"),
    integer("limit_nano"),
    integer("term_us"),
    json("allocations"),
    json("metered"),
    integer("lot_allocated_nano"),
    integer("lot_usage_nano"),
    truth("reserved"),
    octets("specification"),
    integer("placed_us"),
    integer("done_us", null=True),
    text("state"),
    integer("position"),
    Index("bid_by_position", "position"),
    Index("bid_in_book", "instrument", "state"),
)
ROUND: Final = table(
    "round",
    octets("instrument", key=True),
    integer("number", key=True),
    text("resource"),
    text("region"),
    integer("opened_us"),
    integer("clears_us"),
    integer("cleared_us", null=True),
    integer("reference_nano", null=True),
    integer("low_nano", null=True),
    integer("high_nano", null=True),
    integer("price_nano", null=True),
    integer("demand_milli", null=True),
    integer("supply_milli", null=True),
    integer("volume_milli", null=True),
    integer("position"),
    Index("round_by_position", "position"),
)
TRADE: Final = table(
    "trade",
    integer("position", key=True),
    integer("row", key=True),
    octets("instrument"),
    integer("number"),
    octets("bid"),
    octets("offer"),
    octets("node"),
    integer("lots"),
    integer("quantity_milli"),
    integer("price_nano"),
    octets("lease"),
    integer("at_us"),
    Index("trade_by_round", "instrument", "number"),
)

# Leases

LEASE: Final = table(
    "lease",
    octets("lease", key=True),
    octets("bid"),
    octets("offer"),
    octets("instrument"),
    integer("round"),
    octets("buyer"),
    octets("provider"),
    octets("account"),
    octets("node"),
    text("resource"),
    integer("device_milli"),
    integer("price_nano"),
    integer("term_us"),
    integer("ready_by_us"),
    json("allocations"),
    json("metered"),
    truth("interruptible"),
    integer("notice_us"),
    truth("reserved"),
    integer("escrow_allocated_nano"),
    integer("escrow_usage_nano"),
    wide("topped_up_nano"),
    text("state"),
    text("reason", null=True),
    integer("opened_us"),
    integer("ready_us", null=True),
    integer("expires_us", null=True),
    integer("reclaim_us", null=True),
    integer("ended_us", null=True),
    integer("closing_us", null=True),
    integer("closed_us", null=True),
    integer("window_end_us", null=True),
    integer("covered_us"),
    truth("final"),
    wide("provider_nano"),
    wide("protocol_nano"),
    integer("early_nano"),
    integer("broken_until_us", null=True),
    wide("broken_due_nano"),
    wide("broken_taken_nano"),
    wide("refund_nano"),
    integer("position"),
    Index("lease_by_position", "position"),
    Index("lease_by_buyer", "buyer", "position"),
    Index("lease_by_provider", "provider", "position"),
    Index("lease_by_node", "node", "position"),
    Index("lease_by_state", "state", "position"),
)
LEASE_LINE: Final = table(
    "lease_line",
    octets("lease", key=True),
    text("resource", key=True),
    integer("quantity"),
    wide("charged_nano"),
    wide("posted_nano"),
    wide("protocol_nano"),
    wide("unfunded_nano"),
    integer("window_end_us"),
)

# Providers and nodes

PROVIDER: Final = table(
    "provider",
    octets("provider", key=True),
    octets("account"),
    text("location"),
    octets("network"),
    integer("uptime_ppm"),
    integer("response_time_ms"),
    integer("durability_pp12"),
    integer("penalty_ppm"),
    integer("registered_us"),
    integer("admitted_us", null=True),
    wide("required_nano"),
    integer("nodes"),
    integer("leases"),
    wide("posted_nano"),
    wide("matured_nano"),
    integer("windows"),
    integer("obliged_us"),
    integer("down_us"),
    integer("excess_us"),
    integer("slashes"),
    wide("slashed_nano"),
    wide("shortfall_nano"),
    integer("position"),
    Index("provider_by_position", "position"),
)
NODE: Final = table(
    "node",
    octets("node", key=True),
    octets("provider"),
    octets("account"),
    octets("key"),
    text("region"),
    json("identities"),
    integer("manifest_version"),
    integer("beat_us"),
    integer("grace_us"),
    wide("required_nano"),
    integer("registered_us"),
    integer("retired_us", null=True),
    text("health"),
    integer("down_since_us", null=True),
    integer("up_us", null=True),
    integer("health_us", null=True),
    integer("position"),
    Index("node_by_position", "position"),
    Index("node_by_provider", "provider", "position"),
)
NODE_CAPACITY: Final = table(
    "node_capacity",
    octets("node", key=True),
    text("resource", key=True),
    integer("amount"),
    integer("leased"),
)
ATTESTATION: Final = table(
    "attestation",
    integer("position", key=True),
    octets("node"),
    octets("attestor"),
    json("leaves"),
    integer("expires_us"),
    integer("at_us"),
    Index("attestation_by_node", "node", "position"),
)
SLA_WINDOW: Final = table(
    "sla_window",
    octets("node", key=True),
    integer("start_us", key=True),
    octets("provider"),
    integer("end_us"),
    integer("obliged_us"),
    integer("down_us"),
    integer("allowance_us"),
    integer("excess_us"),
    wide("base_nano"),
    wide("required_nano"),
    wide("required_all_nano"),
    wide("slash_nano"),
    octets("slash", null=True),
    integer("at_us"),
    integer("position"),
    Index("sla_window_by_provider", "provider", "position"),
)
SLASH: Final = table(
    "slash",
    octets("slash", key=True),
    octets("provider"),
    octets("node", null=True),
    text("fault"),
    integer("fault_us"),
    wide("base_nano"),
    wide("due_nano"),
    wide("taken_nano"),
    wide("shortfall_nano"),
    octets("pot", null=True),
    integer("at_us"),
    integer("position"),
    Index("slash_by_provider", "provider", "position"),
)
POT: Final = table(
    "pot",
    octets("pot", key=True),
    octets("provider"),
    octets("account"),
    wide("frozen_nano"),
    wide("slashed_nano", null=True),
    wide("thawed_nano", null=True),
    integer("opened_us"),
    integer("joins_until_us"),
    integer("divides_us"),
    integer("divided_us", null=True),
    integer("position"),
    Index("pot_by_provider", "provider", "position"),
)
EVIDENCE: Final = table(
    "evidence",
    integer("position", key=True),
    octets("pot"),
    octets("slash"),
    octets("provider"),
    octets("node"),
    text("fault"),
    integer("fault_us"),
    octets("lease", null=True),
    octets("key"),
    octets("first"),
    octets("second"),
    wide("base_nano"),
    wide("due_nano"),
    integer("at_us"),
    Index("evidence_by_pot", "pot", "position"),
)

# Epochs, as the market cut them

EPOCH: Final = table(
    "epoch",
    integer("number", key=True),
    integer("at_us"),
    integer("height"),
    integer("accounts"),
    wide("added_nano"),
    wide("deposited_nano"),
    wide("authorised_nano"),
    wide("paid_nano"),
    octets("state_root"),
    json("positions"),
    integer("anchored_us", null=True),
    octets("anchored", null=True),
    integer("block", null=True),
    octets("transaction", null=True),
    integer("position"),
)
EPOCH_PART: Final = table(
    "epoch_part",
    integer("epoch", key=True),
    integer("part", key=True),
    integer("accounts"),
    wide("added_nano"),
)
PAYABLE: Final = table(
    "payable",
    integer("epoch", key=True),
    octets("account", key=True),
    octets("payee"),
    wide("added_nano"),
    wide("cumulative_nano"),
    Index("payable_by_account", "account", "epoch"),
)

# Settlement's own

CHECKPOINT: Final = table(
    "checkpoint",
    integer("epoch", key=True),
    integer("at_us"),
    json("roots"),
    octets("ledgers_root"),
    octets("state_root"),
    octets("payout_root"),
    integer("payout_count"),
    wide("deposited_nano"),
    wide("authorised_nano"),
    wide("paid_nano"),
    octets("previous"),
    octets("checkpoint"),
    integer("anchored_us", null=True),
    integer("position"),
)
PAYOUT_LEAF: Final = table(
    "payout_leaf",
    integer("epoch", key=True),
    octets("account", key=True),
    octets("payee"),
    wide("cumulative_nano"),
)

# Metering's own

METER_NODE: Final = table(
    "meter_node",
    octets("node", key=True),
    integer("shard"),
    truth("up"),
    integer("since_us", null=True),
    integer("changed_us"),
)
METER_STATEMENT: Final = table(
    "meter_statement",
    octets("lease", key=True),
    integer("shard"),
    integer("window_end_us"),
    integer("covered_us"),
    truth("final"),
    json("quantities"),
    integer("at_us"),
)
CONTRADICTION: Final = table(
    "contradiction",
    integer("shard", key=True),
    integer("position", key=True),
    octets("node"),
    octets("lease"),
    text("resource"),
    integer("generation"),
    integer("time_us"),
    octets("key"),
    integer("first_total"),
    integer("second_total"),
    octets("first"),
    octets("second"),
    integer("at_us"),
)

# Answers and history, of every ledger

ANSWER: Final = table(
    "answer",
    integer("ledger", key=True),
    octets("key", key=True),
    integer("session", key=True),
    integer("number", key=True),
    integer("shard"),
    integer("height"),
    octets("digest"),
    text("kind"),
    integer("code"),
    text("detail"),
    json("rows"),
    integer("events"),
    integer("at_us"),
    integer("position"),
)
HISTORY: Final = table(
    "history",
    integer("ledger", key=True),
    integer("shard", key=True),
    integer("position", key=True),
    integer("height"),
    integer("at_us"),
    octets("aggregate"),
    integer("version"),
    integer("schema"),
    octets("payload"),
    # Set for orders: hidden until a round of this instrument has cleared (design 6).
    octets("sealed_by", null=True),
    Index("history_by_aggregate", "ledger", "shard", "aggregate", "position"),
    Index("history_by_schema", "ledger", "shard", "schema", "position"),
)
