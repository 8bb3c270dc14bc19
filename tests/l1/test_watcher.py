"""Each event once, in order, from final blocks only; a broken past has a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.l1 import ChainBehind, L1Event, L1Position, ReorgBelowFinality
from domain.l1_watcher import Watcher
from tests.l1.fake_chain import FakeChain, MovingChain


def test_events_come_only_when_their_block_has_the_confirmations() -> None:
    """With k confirmations the newest block read has k blocks on top of it."""
    chain = FakeChain(confirmations=3)
    chain.grow(4)
    watcher = Watcher(chain=chain)

    first = watcher.observe(None)
    assert first.position.number == 1
    assert list(first.events) == chain.all_events(1)

    again = watcher.observe(first.position)
    assert (again.events, again.position, again.reached) == ((), first.position, True)


def test_a_chain_younger_than_its_confirmations_has_nothing_final() -> None:
    """The watcher stands at the pinned start."""
    chain = FakeChain(confirmations=3)
    seen = Watcher(chain=chain).observe(None)
    assert (seen.events, seen.position) == ((), chain.config.start)


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2), st.integers(1, 5)), max_size=8),
    st.integers(1, 4),
)
def test_reorganisations_above_finality_are_never_seen(
    moves: list[tuple[int, int, int]], bound: int
) -> None:
    """Whatever is cut within the confirmations, the events are those of the final chain."""
    chain = FakeChain(confirmations=2)
    chain.grow(3)
    seen: list[L1Event] = []
    position: L1Position | None = None
    watcher = Watcher(chain=chain, blocks_per_step=bound)
    for branch, (grow, cut, more) in enumerate(moves, start=1):
        chain.grow(grow)
        chain.reorganise(cut, branch, cut + more)
        step = watcher.observe(position)
        seen.extend(step.events)
        position = step.position
    while not (step := watcher.observe(position)).reached or step.events:
        seen.extend(step.events)
        position = step.position
    assert seen == chain.all_events(chain.head().number - 2)


def test_a_final_block_that_is_gone_stops_by_name() -> None:
    """The ledger has acted on it, so there is no going on."""
    chain = FakeChain(confirmations=1)
    chain.grow(5)
    watcher = Watcher(chain=chain)
    position = watcher.observe(None).position
    chain.reorganise(3, branch=7, grow=5)
    with pytest.raises(ReorgBelowFinality):
        watcher.observe(position)


def test_a_chain_that_ends_before_the_position_is_not_waited_for_in_silence() -> None:
    """A lagging endpoint comes back; a wiped chain does not, and somebody must hear of it."""
    chain = FakeChain(confirmations=0)
    chain.grow(5)
    position = Watcher(chain=chain).observe(None).position
    chain.reorganise(3, branch=0, grow=0)
    with pytest.raises(ChainBehind):
        Watcher(chain=chain).observe(position)


def test_a_chain_that_moves_between_two_questions_is_read_along_one_branch() -> None:
    """What was not read yet may change under the reader: it follows the new branch."""
    chain = MovingChain(confirmations=0, moves_at=3, depth=2)
    chain.grow(4)
    seen = Watcher(chain=chain).observe(None)
    assert list(seen.events) == chain.all_events(seen.position.number)


def test_a_chain_that_moves_under_what_was_just_read_stops_by_name() -> None:
    """Depth 0 makes the head final; events of a step that ends so are never handed out."""
    chain = MovingChain(confirmations=0, moves_at=3, depth=3)
    chain.grow(4)
    with pytest.raises(ReorgBelowFinality):
        Watcher(chain=chain).observe(None)
