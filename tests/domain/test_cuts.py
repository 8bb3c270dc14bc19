"""No rule sees a commit boundary: inputs cut anywhere give the same events (design 2)."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.test_lives import History, Step, steps
from tests.support.market import World


class Uncut(World):
    """A world whose steps are committed only where ``cuts`` says so."""

    cuts: Any = None

    def _commit(self) -> list[Any]:
        if self.cuts is None or self.market.step_ends or next(self.cuts):
            return super()._commit()
        return []

    def state(self, aggregate: bytes) -> Any:
        """As of the last event, committed or not."""
        return self.market.unit.state(aggregate)  # type: ignore[arg-type]

    def events(self, *kinds: type[Any]) -> list[Any]:
        """Committed events, then those of the step in the making."""
        made = [r.event for r in self.recorded] + [e.event for e in self.market.unit.events]
        return [event for event in made if not kinds or isinstance(event, kinds)]


@settings(max_examples=20)
@given(steps, st.integers(2, 9))
def test_the_same_inputs_cut_elsewhere_give_the_same_events(steps: list[Step], every: int) -> None:
    """One market commits after each item, the other when it likes."""
    one, two = History(), History(Uncut())
    assert isinstance(two.world, Uncut)
    two.world.cuts = (number % every == 0 for number in count(1))
    one.run(steps)
    two.run(steps)
    assert two.world.events() == one.world.events()
