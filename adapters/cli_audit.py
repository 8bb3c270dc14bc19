"""``synor audit``: every commit re-derived, and every checkpoint compared with the L1."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from adapters.cli_audit_progress import AuditProgress
from adapters.cli_failures import Asked
from adapters.cli_ledgers import Place, place_of
from adapters.cli_output import Json, document, facts, noted, said, table
from adapters.cli_units import hexadecimal, shown_synor

if TYPE_CHECKING:
    from adapters.audit import Verdict
    from adapters.bootstrap import Network
    from adapters.bootstrap_audit import Anchors
    from domain.l1 import L1Chain

#: Below this many records another process takes longer to start than to be of use.
_WORTH_A_PROCESS: Final = 20_000


def audit(
    ledger: Annotated[
        list[str],
        typer.Argument(
            help="A folder of `synor up`, of the demo or with network.toml; a SQLite file; "
            "a bundle of `synor export`, or several that go on one after another; "
            "or kafka:HOST:PORT (with a file of [log.security] in SYNOR_KAFKA_SECURITY)."
        ),
    ],
    l1: Annotated[
        str | None, typer.Option("--l1", help="JSON-RPC URL of the L1 that it is anchored on.")
    ] = None,
    no_l1: Annotated[
        bool, typer.Option("--no-l1", help="Leave out the chain in the folder or bundle.")
    ] = False,
    genesis_hash: Annotated[
        str | None,
        typer.Option(help="The network that it must be; default: what the ledger says it is."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Processes; 0 for one a core, where the ledger is large.")
    ] = 0,
    every: Annotated[
        int,
        typer.Option(min=1, help="Of telemetry, one batch in so many is decoded twice."),
    ] = 64,
    as_json: Json = False,
) -> None:
    """Re-derive every commit from the inputs; compare bytes, roots, balances, payouts, anchors.

    Nothing is trusted but the genesis hash, if it is given: signatures are checked again, inputs
    decided again. Exits 0, or with the code of the first divergence, which it names.
    """
    from adapters.audit import Diverged
    from domain.commit import Ledger
    from domain.ports import LogDamaged

    place = place_of(ledger)
    try:
        _audit(place, l1, no_l1, genesis_hash, _How(jobs, every), as_json)
    except Diverged as diverged:
        _report_divergence(diverged, as_json)
        raise typer.Exit(diverged.exit_code) from None
    except LogDamaged as damaged:
        # Before any ledger could be read: the manifest, or the first part.
        found = Diverged("damaged", Ledger.MARKET, 0, -1, -1, "log", str(damaged))
        _report_divergence(found, as_json)
        raise typer.Exit(found.exit_code) from None


@dataclass(frozen=True, slots=True)
class _How:
    jobs: int
    every: int


def _audit(
    place: Place, l1: str | None, no_l1: bool, genesis_hash: str | None, how: _How, as_json: bool
) -> None:
    from adapters import bootstrap
    from adapters.avro_codec import AvroCodec
    from adapters.bootstrap_audit import audit_on_cores, check_anchors
    from adapters.bundle_log import BundleLog
    from adapters.cli_vaults import vault_of

    codec = AvroCodec()
    with closing(place.open()) as log:
        genesis, shards = bootstrap.first_genesis(log, codec)
        network = bootstrap.Network.of(genesis, shards, codec)
        records = sum(log.end(t, p) for t, count in network.topics().items() for p in range(count))
        to_epoch = log.origin.to_epoch if isinstance(log, BundleLog) else 0
    if genesis_hash is not None and network.hash != hexadecimal(
        genesis_hash, 32, "a network (a genesis hash)"
    ):
        raise Asked(
            f"{place.name} says that it is the network {network.hash.hex()}.",
            "That is not the genesis hash that was asked for: it is another ledger.",
        )
    jobs = how.jobs or (1 if records < _WORTH_A_PROCESS else len(os.sched_getaffinity(0)))
    with vault_of(place, network, l1, no_l1) as chain:
        at_least = _held_before(chain, to_epoch)
        progress = AuditProgress(network.ledgers())
        try:
            if jobs == 1:
                with closing(place.open()) as log:
                    verdict = bootstrap.audit(network, log, progress, every=how.every)
            else:
                verdict = audit_on_cores(
                    network, place.open, jobs=jobs, every=how.every, progress=progress
                )
        finally:
            progress.done()
        anchors = None if chain is None else check_anchors(verdict, chain, at_least=at_least)
    found = _Found(place, network, verdict, anchors, progress.seconds(), jobs, how.every)
    if as_json:
        _report_json(found)
    else:
        _report(found)


def _held_before(chain: L1Chain | None, to_epoch: int) -> int:
    """How many epochs the vault held before the ledger was read: so many it must have."""
    from adapters.bundle_l1 import RecordedChain

    if chain is None:
        return 0
    held = chain.at_least if isinstance(chain, RecordedChain) else chain.totals().last_epoch
    return min(held, to_epoch) if to_epoch else held


# What is printed


@dataclass(frozen=True, slots=True)
class _Found:
    place: Place
    network: Network
    verdict: Verdict
    anchors: Anchors | None
    seconds: float
    jobs: int
    every: int

    def sum(self, name: str) -> int:
        """A figure of all ledgers' reports."""
        return sum(getattr(each, name) for each in self.verdict.reports)


def _report_divergence(diverged: Any, as_json: bool) -> None:
    from domain.commit import LEDGER_TOPICS

    if as_json:
        document(
            {
                "audit": "diverged",
                "divergence": diverged.name,
                "ledger": diverged.ledger.name.lower(),
                "shard": diverged.shard,
                "height": diverged.height,
                "offset": diverged.offset,
                "topic": LEDGER_TOPICS[diverged.ledger],
                "at": diverged.at,
                "text": str(diverged),
                "exit": diverged.exit_code,
            }
        )
        return
    noted(f"The ledger is not what its inputs make of it.\n  {diverged}")


def _report_json(found: _Found) -> None:
    totals, anchors, seconds = found.verdict.totals, found.anchors, max(found.seconds, 0.001)
    document(
        {
            "audit": "ok",
            "ledger": found.place.name,
            "network": found.network.genesis.network,
            "genesis_hash": found.network.hash,
            "commits": found.sum("commits"),
            "events": found.sum("events"),
            "inputs": found.sum("inputs"),
            "inputs_from_ledger": {
                "runs": found.sum("kept_runs"),
                "records": found.sum("kept_inputs"),
            },
            "decoded_twice": found.sum("witnessed"),
            "noise": found.sum("noise"),
            "leases": totals.leases,
            "readings": totals.readings,
            "deposited_nano": totals.deposited,
            "claimed_nano": totals.claimed,
            "charged_nano": totals.charged,
            "provider_nano": totals.provider,
            "protocol_nano": totals.protocol,
            "slashed_nano": totals.slashed,
            "epochs": totals.epochs,
            "epochs_anchored": totals.anchored,
            "l1": None
            if anchors is None
            else {
                "checkpoints": anchors.checkpoints,
                "waiting": anchors.waiting,
                "deposited_nano": anchors.deposited_nano,
                "authorised_nano": anchors.authorised_nano,
                "paid_nano": anchors.paid_nano,
                "deposits_exact": anchors.at_observed_block,
            },
            "state_hash": found.verdict.state_hash,
            "jobs": found.jobs,
            "every": found.every,
            "inputs_per_s": round(found.sum("inputs") / seconds),
            "readings_per_s": round(totals.readings / seconds),
            "input_mb_per_s": f"{found.sum('input_bytes') / seconds / 1e6:.1f}",
            "seconds": f"{found.seconds:.3f}",
        }
    )


def _report(found: _Found) -> None:
    totals, anchors, network = found.verdict.totals, found.anchors, found.network
    table(
        ("ledger", ">commits", ">events", ">inputs", "head"),
        (
            (
                f"{each.ledger.name.lower()} {each.shard}",
                f"{each.commits:,}",
                f"{each.events:,}",
                f"{each.inputs:,}",
                each.head.hex()[:16],
            )
            for each in found.verdict.reports
        ),
    )
    said("")
    noise, kept = found.sum("noise"), found.sum("kept_runs")
    facts(
        (
            ("network", f"{network.genesis.network}  {network.hash.hex()}"),
            ("leases, readings", f"{totals.leases:,}, {totals.readings:,}"),
            ("deposited", f"{shown_synor(totals.deposited)} SYNOR"),
            ("claimed", f"{shown_synor(totals.claimed)} SYNOR"),
            ("charged", f"{shown_synor(totals.charged)} SYNOR"),
            ("  to providers", f"{shown_synor(totals.provider)} SYNOR"),
            ("  to the protocol", f"{shown_synor(totals.protocol)} SYNOR"),
            ("slashed", f"{shown_synor(totals.slashed)} SYNOR"),
            ("epochs, seen final", f"{totals.epochs:,}, {totals.anchored:,}"),
            (
                "on the L1",
                "not compared"
                if anchors is None
                else f"{anchors.checkpoints:,} checkpoints equal, {anchors.waiting:,} to come; "
                f"paid {shown_synor(anchors.paid_nano)} of {shown_synor(anchors.authorised_nano)} "
                f"authorised of {shown_synor(anchors.deposited_nano)} SYNOR deposited",
            ),
            (
                "inputs from the ledger",
                f"{kept:,} ranges, {found.sum('kept_inputs'):,} records: their telemetry is "
                "deleted, their signed batches are in the bulk, garbage is not compared"
                if kept
                else "",
            ),
            ("decoded twice", f"{found.sum('witnessed'):,} records"),
            ("records ignored", f"{noise:,}" if noise else ""),
            ("state hash", found.verdict.state_hash),
        )
    )
    seconds = max(found.seconds, 0.001)
    cores = "1 process" if found.jobs == 1 else f"{found.jobs} processes"
    said(
        f"Audit ok: every commit follows from its inputs. {found.seconds:.1f} s on {cores}, "
        f"{found.sum('inputs') / seconds:,.0f} inputs/s, "
        f"{totals.readings / seconds:,.0f} readings/s."
    )
