"""The registry: accounts, keys, L1 observations, parameters, providers, nodes (R1, R6, R10).

Handlers gather what a decision needs, ask the aggregate's pure ``decide``, and emit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, get_args

from domain import account, key, ledger, node, provider
from domain.account import (
    AdmitAccount,
    ObserveClaim,
    ObserveDeposit,
    OpenAccount,
    PayeeSet,
    SetPayee,
    Withdraw,
    deposits_aggregate,
)
from domain.commit import Ledger
from domain.genesis import Role
from domain.ids import (
    AggregateId,
    NodeId,
    ProviderId,
    PublicKey,
)
from domain.journal import Purse
from domain.key import (
    KeyRegistered,
    RegisterKey,
    RevokeKey,
    RowRefused,
    key_aggregate,
    possession,
)
from domain.ledger import (
    LEDGER_ID,
    ActivateRules,
    AddPriceRow,
    ChangeParameter,
    RotateWriter,
    WriterRotated,
    appointment,
)
from domain.node import (
    AttestNodes,
    RegisterNodes,
    RetireNode,
)
from domain.provider import (
    NOT_A_PROVIDER,
    RegisterProvider,
    provider_of,
)
from domain.refusal import KEY_ROLE, TOO_MANY_ROWS, Refused
from domain.registry_fold import RegistryFold

if TYPE_CHECKING:
    from domain.market import Market, Request

__all__ = [
    "EVOLVE",
    "FIRE",
    "HANDLERS",
    "LEARN",
    "RegistryFold",
    "admit",
    "role_refused",
    "row_refused",
    "rows_refused",
]

# Rules


def role_refused(request: Request, *allowed: Role) -> Refused | None:
    """The first check of every handler: whether the signer's role may ask for this at all."""
    if request.holder.role in allowed and not request.holder.new:
        return None
    return Refused(KEY_ROLE, f"{request.holder.role.value} may not do this")


def rows_refused(market: Market, rows: int) -> Refused | None:
    """The bound on rows of a command batch."""
    most = market.parameters.command_rows
    return Refused(TOO_MANY_ROWS, f"{rows} rows, at most {most}") if rows > most else None


def _open_account(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    command: OpenAccount = request.command
    if request.holder.role is not Role.OWNER:
        return Refused(KEY_ROLE, f"{request.holder.role.value} has no account of its own")
    account_id = request.holder.account
    said = account.decide_open(
        command,
        market.unit.state(AggregateId(account_id)),
        account=account_id,
        key=PublicKey(request.key),
        owner_opened=command.owner is not None and market.folds.registry.opened(command.owner),
        now_us=market.time_us,
    )
    if isinstance(said, Refused):
        return said
    market.emit(AggregateId(account_id), said)
    market.emit(
        key_aggregate(request.key),
        KeyRegistered(
            at_us=market.time_us,
            key=PublicKey(request.key),
            role=Role.OWNER,
            account=account_id,
        ),
    )
    return ()


def _admit_account(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    command: AdmitAccount = request.command
    folds = market.folds
    by = request.holder.account
    said = account.decide_admit(
        market.unit.state(AggregateId(command.account)),
        account=command.account,
        by=by,
        by_owner=folds.registry.beneficial_owner(by),
        owns_others=folds.registry.owns_others(command.account),
        orders=folds.orders.live_of(by) + folds.orders.live_of(command.account),
        live_orders=market.parameters.live_orders,
        now_us=market.time_us,
    )
    return _emitted(market, AggregateId(command.account), said)


def _set_payee(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    command: SetPayee = request.command
    account_id = request.holder.account
    market.emit(
        AggregateId(account_id),
        PayeeSet(at_us=market.time_us, account=account_id, payee=command.payee),
    )
    return ()


def _withdraw(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    command: Withdraw = request.command
    account_id = request.holder.account
    return _emitted(
        market,
        AggregateId(account_id),
        account.decide_withdraw(
            command.amount_nano,
            account=account_id,
            free_nano=market.folds.balances.of(Purse.FREE, account_id),
            now_us=market.time_us,
        ),
    )


def _observe_deposit(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.WATCHER)
    if refused is not None:
        return refused
    seen: ObserveDeposit = request.command
    said = account.decide_deposit(
        seen,
        last=market.folds.registry.last_deposit,
        deposited_nano=market.folds.registry.deposited_nano,
        now_us=market.time_us,
    )
    return _emitted(market, deposits_aggregate(seen.account), said)


def _observe_claim(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.WATCHER)
    if refused is not None:
        return refused
    seen: ObserveClaim = request.command
    said = account.decide_claim(
        seen,
        market.unit.state(AggregateId(seen.account)),
        payable_nano=market.folds.balances.of(Purse.PAYABLE, seen.account),
        now_us=market.time_us,
    )
    return _emitted(market, AggregateId(seen.account), said)


def _proven(market: Market, request: Request, new: PublicKey, role: Role, proof: bytes) -> bool:
    """Whether the new key itself has signed for the account that registers it."""
    asked = possession(market.genesis_hash, request.holder.account, new, role)
    return market.verify(new, asked, proof)


def _register_key(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    command: RegisterKey = request.command
    said = key.decide_register(
        command,
        account=request.holder.account,
        known=market.folds.keys.holder(command.key) is not None,
        proven=_proven(market, request, command.key, command.role, command.proof),
        now_us=market.time_us,
    )
    return _emitted(market, key_aggregate(command.key), said)


def _revoke_key(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    command: RevokeKey = request.command
    said = key.decide_revoke(
        command,
        market.unit.state(key_aggregate(command.key)),
        account=request.holder.account,
        owners=market.folds.keys.owners(request.holder.account),
        now_us=market.time_us,
    )
    return _emitted(market, key_aggregate(command.key), said)


def _change_parameter(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OPERATOR)
    if refused is not None:
        return refused
    command: ChangeParameter = request.command
    said = ledger.decide_change(command, market.parameters, now_us=market.time_us)
    return _emitted(market, LEDGER_ID, said)


def _add_price_row(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OPERATOR)
    if refused is not None:
        return refused
    command: AddPriceRow = request.command
    said = ledger.decide_add_row(
        command, market.folds.registry.catalogue, market.parameters, now_us=market.time_us
    )
    return _emitted(market, LEDGER_ID, said)


def _activate_rules(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OPERATOR)
    if refused is not None:
        return refused
    command: ActivateRules = request.command
    said = ledger.decide_activate(command, market.rules_version, now_us=market.time_us)
    return _emitted(market, LEDGER_ID, said)


def _rotate_writer(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OPERATOR)
    if refused is not None:
        return refused
    command: RotateWriter = request.command
    new = command.writer

    def proven() -> bool:
        asked = appointment(market.genesis_hash, command.ledger, new)
        return market.verify(new, asked, command.proof)

    folds = market.folds
    said = ledger.decide_rotate(
        command,
        used=new in folds.registry.writers or folds.keys.holder(new) is not None,
        proven=proven,
        now_us=market.time_us,
    )
    if isinstance(said, Refused):
        return said
    market.emit(LEDGER_ID, said)
    if said.ledger == Ledger.MARKET:
        market.emit(LEDGER_ID, WriterRotated(at_us=market.time_us, writer=new))
    return ()


def _register_provider(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    command: RegisterProvider = request.command
    aggregate = AggregateId(provider_of(request.holder.account))
    said = provider.decide_register(
        command,
        market.unit.state(aggregate),
        account=request.holder.account,
        uptime_ppm=(market.parameters.uptime_min_ppm, market.parameters.uptime_max_ppm),
        location_length=market.parameters.location_length,
        now_us=market.time_us,
    )
    return _emitted(market, aggregate, said)


def _register_nodes(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    command: RegisterNodes = request.command
    refused = rows_refused(market, len(command.nodes)) or role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    registry = market.folds.registry
    owner = request.holder.account
    provider_id = registry.provider_of_account(owner)
    if provider_id is None:
        return Refused(NOT_A_PROVIDER, owner.hex())
    rows: list[RowRefused] = []
    for number, row in enumerate(command.nodes):
        made = NodeId(request.id("node", number))
        said = node.decide_register(
            row,
            node=made,
            provider=provider_id,
            account=owner,
            catalogue=registry.catalogue,
            parameters=market.parameters,
            key_known=market.folds.keys.holder(row.key) is not None,
            key_proven=_proven(market, request, row.key, Role.NODE, row.proof),
            in_use=lambda identity: registry.node_of_device(identity) is not None,
            now_us=market.time_us,
        )
        if isinstance(said, Refused):
            rows.append(row_refused(number, said))
            continue
        market.emit(AggregateId(made), said)
        market.emit(
            key_aggregate(row.key),
            KeyRegistered(
                at_us=market.time_us, key=row.key, role=Role.NODE, account=owner, node=made
            ),
        )
    admit(market, provider_id)
    return rows


def admit(market: Market, provider_id: ProviderId) -> None:
    """Admit a provider in the item in which its stake first reaches Σ r of its nodes (R6.1)."""
    aggregate = AggregateId(provider_id)
    admitted = provider.decide_admission(
        market.unit.state(aggregate),
        provider=provider_id,
        required_nano=market.folds.stake.required_nano(provider_id),
        nodes=market.folds.stake.unretired(provider_id),
        now_us=market.time_us,
    )
    if admitted is not None:
        market.emit(aggregate, admitted)


def _attest_nodes(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    command: AttestNodes = request.command
    refused = rows_refused(market, len(command.attestations)) or role_refused(
        request, Role.ATTESTOR
    )
    if refused is not None:
        return refused
    rows: list[RowRefused] = []
    for number, row in enumerate(command.attestations):
        said = node.decide_attest(
            row,
            _node_of(market, row.node),
            attestor=PublicKey(request.key),
            longest_us=market.parameters.attestation_us,
            now_us=market.time_us,
        )
        if isinstance(said, Refused):
            rows.append(row_refused(number, said))
        else:
            market.emit(AggregateId(row.node), said)
    return rows


def _retire_node(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    command: RetireNode = request.command
    aggregate = AggregateId(command.node)
    said = node.decide_retire(
        command.node,
        _node_of(market, command.node),
        account=request.holder.account,
        live_leases=market.folds.leases.live_on(command.node),
        live_offers=market.folds.stake.live_offers(command.node),
        bound_until_us=market.folds.stake.bound_until_us(command.node),
        now_us=market.time_us,
    )
    if isinstance(said, Refused):
        return said
    market.emit(aggregate, said)
    admit(market, provider_of(request.holder.account))
    return ()


def _node_of(market: Market, named: bytes) -> node.NodeState | None:
    """The node that a command names; None where nothing or something else has that id."""
    state = market.unit.state(AggregateId(named))
    return state if isinstance(state, node.NodeState) else None


def _emitted(market: Market, aggregate: AggregateId, said: Any) -> Refused | Sequence[RowRefused]:
    """Pass a refusal on, or emit the one event that was decided."""
    if isinstance(said, Refused):
        return said
    market.emit(aggregate, said)
    return ()


def row_refused(row: int, said: Refused) -> RowRefused:
    """One row's refusal within an accepted batch."""
    return RowRefused(row=row, code=said.code.number, detail=said.detail)


def _by(events: Any, evolve: Callable[[Any, Any], Any]) -> dict[type[Any], Callable[..., Any]]:
    """Every event of a union goes to one evolve."""
    return dict.fromkeys(get_args(events), evolve)


HANDLERS: Final = {
    OpenAccount: _open_account,
    AdmitAccount: _admit_account,
    SetPayee: _set_payee,
    Withdraw: _withdraw,
    ObserveDeposit: _observe_deposit,
    ObserveClaim: _observe_claim,
    RegisterKey: _register_key,
    RevokeKey: _revoke_key,
    ChangeParameter: _change_parameter,
    AddPriceRow: _add_price_row,
    ActivateRules: _activate_rules,
    RotateWriter: _rotate_writer,
    RegisterProvider: _register_provider,
    RegisterNodes: _register_nodes,
    AttestNodes: _attest_nodes,
    RetireNode: _retire_node,
}
FIRE: Final[Mapping[int, Callable[[Market, int, bytes], None]]] = {}
LEARN: Final[Mapping[type[Any], Callable[[Market, Any, Any], None]]] = {}
EVOLVE: Final[Mapping[type[Any], Callable[[Any, Any], Any]]] = {
    **_by(account.AccountEvent, account.evolve),
    **_by(key.KeyEvent, key.evolve),
    **_by(ledger.LedgerEvent, ledger.evolve),
    **_by(provider.ProviderEvent, provider.evolve),
    **_by(node.NodeEvent, node.evolve),
}
