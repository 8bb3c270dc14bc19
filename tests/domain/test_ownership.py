"""Beneficial owners: an account belongs to another only where both sides say so (R8.1, R8.7)."""

from __future__ import annotations

from domain.account import AccountAdmitted, AdmitAccount, OpenAccount
from domain.bid import BidPlaced, CancelBid, PlaceBids
from domain.genesis import Parameters, Role
from domain.ids import AccountId
from domain.key import RegisterKey
from domain.lease import LeaseOpened
from tests.domain.deals import bid, bid_row, clear, market_of, offer
from tests.support.market import SYNOR, World, key_of, payee_of


def test_nobody_becomes_a_beneficial_owner_without_saying_so() -> None:
    """R8.1, R8.7: or a stranger's account would use up its cap and be netted against it."""
    world = World()
    world.open("holding")
    wish = OpenAccount(payee=payee_of("daughter"), owner=world.account("holding"))
    (opened, _) = world.ok("daughter", wish)
    daughter, holding = world.account("daughter"), world.account("holding")
    assert (opened.owner, opened.wishes) == (daughter, holding)
    owner_of = world.market.folds.registry.beneficial_owner
    assert owner_of(daughter) == daughter
    (admitted,) = world.ok("holding", AdmitAccount(account=daughter))
    assert isinstance(admitted, AccountAdmitted)
    assert owner_of(daughter) == holding == world.state(daughter).owner
    assert owner_of(AccountId(bytes(16))) == AccountId(bytes(16))
    world.check_replay()


def test_orders_that_rest_count_for_the_owner_that_admits_their_account() -> None:
    """R8.7: both together within the cap, before and after; what leaves frees a place."""
    world = World(Parameters(live_orders=3))
    for name, owner in (("holding", None), ("daughter", "holding")):
        wished = None if owner is None else world.account(owner)
        world.ok(name, OpenAccount(payee=payee_of(name), owner=wished))
        world.deposit(name, 100 * SYNOR)
        for _ in range(2):
            bid(world, name)
    clear(world)
    admit = AdmitAccount(account=world.account("daughter"))
    assert world.refused("holding", admit) == "too_many_live_orders"
    first, second, _, last = [placed.bid for placed in world.events(BidPlaced)]
    world.ok("holding", CancelBid(bid=first))
    world.ok("holding", admit)
    row = PlaceBids(bids=(bid_row(),))
    assert world.refused_rows("daughter", row) == {0: "too_many_live_orders"}
    world.ok("daughter", CancelBid(bid=last))
    world.ok("holding", row)
    assert world.refused_rows("daughter", row) == {0: "too_many_live_orders"}
    world.ok("holding", CancelBid(bid=second))
    world.check_replay()


def test_an_admission_is_refused_in_order() -> None:
    """Both sides, once, and no owner of owners; so two accounts cannot own one another."""
    world = World()
    world.open("holding")
    world.open("other")
    world.ok("holding", RegisterKey(key=key_of("gateway"), role=Role.GATEWAY))
    world.open("daughter", owner="holding")
    world.ok("niece", OpenAccount(payee=payee_of("n"), owner=world.account("daughter")))
    world.ok("mother", OpenAccount(payee=payee_of("m"), owner=world.account("other")))
    world.open("child", owner="mother")

    def refused(who: str, account: str) -> str:
        return world.refused(who, AdmitAccount(account=world.account(account)))

    assert refused("gateway", "nobody") == "key_role_not_allowed"
    assert refused("holding", "nobody") == "admission_not_wished"
    assert refused("holding", "other") == "admission_not_wished"
    assert refused("holding", "holding") == "admission_not_wished"
    assert refused("other", "daughter") == "admission_not_wished"
    assert refused("holding", "daughter") == "already_admitted"
    assert refused("daughter", "niece") == "owned_by_another"
    assert refused("other", "mother") == "owns_others"


def test_an_owner_s_accounts_are_netted_from_the_admission_on() -> None:
    """R8.1: before it the two are strangers to each other and may trade."""
    world, nodes = market_of(nodes=2)
    wish = OpenAccount(payee=payee_of("front"), owner=world.account("alice"))
    world.ok("front", wish)
    world.deposit("front", 100 * SYNOR)
    for node in nodes:
        offer(world, "alice", node)
    bid(world, "front")
    clear(world)
    assert len(world.events(LeaseOpened)) == 1
    world.ok("alice", AdmitAccount(account=world.account("front")))
    bid(world, "front")
    clear(world)
    assert len(world.events(LeaseOpened)) == 1
    world.check_replay()
