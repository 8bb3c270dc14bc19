"""The topics of a network and what stands on them: created, checked, and looked over."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from adapters.bootstrap import create_topics
from adapters.roles import ADMIN, OPERATOR, Deployment
from adapters.settings import ChainKind, LogKind
from domain.commit import EVENTS_TOPIC, TELEMETRY_TOPIC

if TYPE_CHECKING:
    from adapters.roles_check import LedgerFound


def create(deployment: Deployment) -> None:
    """Create every topic that is absent; weaker ones are refused by name."""
    with deployment.topics(ADMIN) as admin:
        create_topics(deployment.network, admin)
        for topic, partitions in derived_topics(deployment).items():
            admin.create(topic, partitions, keep_forever=False)


def derived_topics(deployment: Deployment) -> dict[str, int]:
    """Topics that no ledger reads: none of the embedded log."""
    if deployment.settings.log.kind is not LogKind.KAFKA:
        return {}
    return {EVENTS_TOPIC: deployment.network.shards}


def look_over(deployment: Deployment) -> Sequence[LedgerFound]:
    """What stands on every ledger, held against all that remembers it; read as an auditor."""
    from adapters.roles_check import index_claims, look_over, row_claims

    settings, network = deployment.settings, deployment.network
    # What is remembered comes first: the log only grows while it is read.
    claims = [*index_claims(network, settings.index), *row_claims(network, settings.read_model)]
    anchored = 0
    if settings.chain.kind is ChainKind.RPC:
        from adapters.evm_chain import EvmChain
        from adapters.evm_rpc import Rpc, http_provider

        chain = EvmChain(Rpc(http_provider(settings.chain.url)), deployment.chain_config())
        anchored = chain.totals().last_epoch
    with ExitStack() as stack:
        log = deployment.log(stack, "reader")
        return look_over(network, log, claims, anchored_epochs=anchored)


def check(deployment: Deployment) -> Sequence[str]:
    """What is wrong with the topics, as sentences."""
    with deployment.topics(OPERATOR) as admin:
        return [
            complaint
            for topic, partitions in sorted(
                (deployment.network.topics() | derived_topics(deployment)).items()
            )
            for complaint in admin.check(
                topic, partitions, keep_forever=topic not in (TELEMETRY_TOPIC, EVENTS_TOPIC)
            )
        ]
