"""Facts that every rule asks for: who owns what, what a node has, what of it is attested (R6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from domain import ledger
from domain.account import AccountAdmitted, AccountOpened, DepositCredited, PayeeSet
from domain.catalogue import Catalogue
from domain.genesis import Genesis
from domain.ids import AccountId, Hash32, NodeId, ProviderId, PublicKey
from domain.ledger import ParameterChanged, PriceRowAdded, WriterAppointed, changed
from domain.node import NodeAttested, NodeRegistered, NodeRetired, leaf
from domain.provider import Commitment, ProviderAdmitted, ProviderRegistered

if TYPE_CHECKING:
    from domain.market import Market


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What rules may know of a node. ``expiries`` has the attested resources only."""

    node: NodeId
    provider: ProviderId
    account: AccountId
    key: PublicKey
    region: str
    capacity: Mapping[str, int]
    required_nano: int
    beat_us: int
    grace_us: int
    registered_us: int
    resources: Mapping[Hash32, str]
    expiries: Mapping[str, int]
    retired: bool = False

    def attested(self, resource: str, now_us: int) -> int:
        """How much of a resource somebody vouches for now: all that the node has, or nothing."""
        return self.capacity[resource] if self.expiries.get(resource, 0) > now_us else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFacts:
    """What rules may know of a provider; ``admitted_us`` is None before admission."""

    provider: ProviderId
    account: AccountId
    location: str
    commitment: Commitment
    admitted_us: int | None = None


class RegistryFold:
    """Accounts, providers, nodes and the catalogue, from events alone."""

    def __init__(self, genesis: Genesis) -> None:
        """Nobody is registered; the catalogue is the genesis'."""
        self._genesis = genesis
        self._market: Market | None = None
        self._owners: dict[AccountId, AccountId] = {}
        self._owns: dict[AccountId, None] = {}
        self._payees: dict[AccountId, bytes] = {}
        self._providers: dict[ProviderId, ProviderFacts] = {}
        self._by_account: dict[AccountId, ProviderId] = {}
        self._nodes: dict[NodeId, NodeFacts] = {}
        self._devices: dict[Hash32, NodeId] = {}
        self._identities: dict[NodeId, tuple[Hash32, ...]] = {}
        self.catalogue = Catalogue(genesis.catalogue, genesis.shares)
        #: Every key that writes or ever wrote a ledger.
        self.writers: dict[PublicKey, None] = dict.fromkeys(
            (genesis.market_writer, genesis.metering_writer, genesis.settlement_writer)
        )
        self.last_deposit = (-1, -1)
        self.deposited_nano = 0

    def bind(self, market: Market) -> None:
        """Take the market whose parameters follow ``ParameterChanged``."""
        self._market = market

    def opened(self, account_id: AccountId) -> bool:
        """Whether the account has an owner."""
        return account_id in self._owners

    def beneficial_owner(self, account_id: AccountId) -> AccountId:
        """The account that this one belongs to; itself where it belongs to none."""
        return self._owners.get(account_id, account_id)

    def owns_others(self, account_id: AccountId) -> bool:
        """Whether the account has admitted others."""
        return account_id in self._owns

    def payee(self, account_id: AccountId) -> bytes | None:
        """The EVM address of an opened account."""
        return self._payees.get(account_id)

    def provider(self, provider_id: ProviderId) -> ProviderFacts | None:
        """A registered provider."""
        return self._providers.get(provider_id)

    def provider_of_account(self, account_id: AccountId) -> ProviderId | None:
        """The provider that an account runs."""
        return self._by_account.get(account_id)

    def node(self, node_id: NodeId) -> NodeFacts | None:
        """A node that was ever registered."""
        return self._nodes.get(node_id)

    def node_of_device(self, identity: Hash32) -> NodeId | None:
        """The unretired node that holds a device."""
        return self._devices.get(identity)

    def apply(self, event: Any) -> None:
        """Take in one event; events of no interest are ignored."""
        follow = _FOLLOW.get(type(event))
        if follow is not None:
            follow(self, event)

    def _account_opened(self, event: AccountOpened) -> None:
        self._owners[event.account] = event.owner
        self._payees[event.account] = event.payee

    def _account_admitted(self, event: AccountAdmitted) -> None:
        self._owners[event.account] = event.owner
        self._owns[event.owner] = None

    def _payee_set(self, event: PayeeSet) -> None:
        self._payees[event.account] = event.payee

    def _deposit_credited(self, event: DepositCredited) -> None:
        self.last_deposit = (event.block, event.log_index)
        self.deposited_nano += event.amount_nano

    def _parameter_changed(self, event: ParameterChanged) -> None:
        if self._market is not None:
            self._market.parameters = changed(self._market.parameters, event.name, event.value)

    def _price_row_added(self, event: PriceRowAdded) -> None:
        self.catalogue = ledger.extended(self.catalogue, self._genesis, event)

    def _writer_appointed(self, event: WriterAppointed) -> None:
        self.writers[event.writer] = None

    def _provider_registered(self, event: ProviderRegistered) -> None:
        self._by_account[event.account] = event.provider
        self._providers[event.provider] = ProviderFacts(
            provider=event.provider,
            account=event.account,
            location=event.location,
            commitment=Commitment(
                uptime_ppm=event.uptime_ppm,
                response_time_ms=event.response_time_ms,
                durability_pp12=event.durability_pp12,
                penalty_ppm=event.penalty_ppm,
            ),
        )

    def _provider_admitted(self, event: ProviderAdmitted) -> None:
        known = self._providers[event.provider]
        self._providers[event.provider] = replace(known, admitted_us=event.at_us)

    def _node_registered(self, event: NodeRegistered) -> None:
        capacity = {has.resource: has.amount for has in event.capacity}
        self._identities[event.node] = event.identities
        for identity in event.identities:
            self._devices[identity] = event.node
        self._nodes[event.node] = NodeFacts(
            node=event.node,
            provider=event.provider,
            account=event.account,
            key=event.key,
            region=event.region,
            capacity=capacity,
            required_nano=event.required_nano,
            beat_us=event.beat_us,
            grace_us=event.grace_us,
            registered_us=event.at_us,
            resources={
                leaf(event.node, resource, amount, event.manifest_version): resource
                for resource, amount in capacity.items()
            },
            expiries={},
        )

    def _node_attested(self, event: NodeAttested) -> None:
        known = self._nodes[event.node]
        expiries = dict(known.expiries)
        for one in event.leaves:
            resource = known.resources[one]
            expiries[resource] = max(expiries.get(resource, 0), event.expires_us)
        self._nodes[event.node] = replace(known, expiries=expiries)

    def _node_retired(self, event: NodeRetired) -> None:
        self._nodes[event.node] = replace(self._nodes[event.node], retired=True)
        for identity in self._identities.pop(event.node):
            del self._devices[identity]


_FOLLOW: Final[Mapping[type[Any], Callable[[RegistryFold, Any], None]]] = {
    AccountOpened: RegistryFold._account_opened,
    AccountAdmitted: RegistryFold._account_admitted,
    PayeeSet: RegistryFold._payee_set,
    DepositCredited: RegistryFold._deposit_credited,
    ParameterChanged: RegistryFold._parameter_changed,
    PriceRowAdded: RegistryFold._price_row_added,
    WriterAppointed: RegistryFold._writer_appointed,
    ProviderRegistered: RegistryFold._provider_registered,
    ProviderAdmitted: RegistryFold._provider_admitted,
    NodeRegistered: RegistryFold._node_registered,
    NodeAttested: RegistryFold._node_attested,
    NodeRetired: RegistryFold._node_retired,
}
