"""Takes held events, and what views of money have missed, after what stood in the way is mended.

The events are taken from the history of the read models themselves, so a retry needs no log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from adapters.read_model import ReadModel
from adapters.read_model_rows import SqlRows
from domain.codec import Codec
from domain.commit import Ledger, RecordedEvent
from projections import held
from projections.fold import attempt
from projections.fold_rows import At
from projections.held_tables import FOLDING, HELD, HELD_KEY
from projections.tables import HISTORY

_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """What a retry has changed."""

    released_events: int
    released_keys: int
    money_resumed: int


class Retry:
    """One retry of everything that is held; each part of it is a transaction of its own."""

    def __init__(self, read_model: ReadModel, codec: Codec) -> None:
        """Nothing is read yet."""
        self._read_model = read_model
        self._codec = codec
        self._events = self._keys = self._resumed = 0

    def run(self) -> Retried:
        """Money first: orders and nodes ask its leases."""
        with self._read_model.reading() as connection:
            stopped = list(
                connection.execute(
                    select(FOLDING.c.ledger, FOLDING.c.shard).where(
                        FOLDING.c.money_position.is_not(None)
                    )
                )
            )
            keys = list(
                connection.execute(
                    select(HELD_KEY.c.ledger, HELD_KEY.c.shard, HELD_KEY.c.aggregate).order_by(
                        HELD_KEY.c.position
                    )
                )
            )
        for ledger, shard in stopped:
            while self._money(ledger, shard):
                pass
        for ledger, shard, aggregate in keys:
            self._read_model.mend(
                lambda rows, connection, key=(ledger, shard, aggregate): self._key(  # type: ignore[misc]
                    rows, connection, *key
                )
            )
        return Retried(
            released_events=self._events, released_keys=self._keys, money_resumed=self._resumed
        )

    def _money(self, ledger: int, shard: int) -> bool:
        """Some events of a ledger whose views of money stand still. True if there are more."""
        more = False

        def change(rows: SqlRows, connection: Connection) -> None:
            nonlocal more
            folding = rows.known(FOLDING, ledger, shard)
            since = folding["money_position"]
            if since is None:
                return
            chosen = (
                select(HISTORY)
                .where(
                    HISTORY.c.ledger == ledger,
                    HISTORY.c.shard == shard,
                    HISTORY.c.position >= since,
                )
                .order_by(HISTORY.c.position)
                .limit(_AT_ONCE)
            )
            taken = 0
            for at, recorded, said in self._decoded(connection, chosen):
                failed = attempt(rows, at, said, money=True)
                if failed is not None:
                    held.stop_money(rows, at, recorded.aggregate, said.at_us, failed)
                    return
                taken += 1
                rows.change(FOLDING, ledger, shard, money_position=at.position + 1)
            more = taken == _AT_ONCE
            if not more:
                held.resume_money(rows, ledger, shard)
                self._resumed += 1

        self._read_model.mend(change)
        return more

    def _key(
        self, rows: SqlRows, connection: Connection, ledger: int, shard: int, aggregate: bytes
    ) -> None:
        """The held events of one aggregate, as far as they can be taken."""
        key = rows.get(HELD_KEY, ledger, shard, aggregate)
        if key is None:
            return
        chosen = (
            select(HISTORY)
            .join(
                HELD,
                (HELD.c.ledger == HISTORY.c.ledger)
                & (HELD.c.shard == HISTORY.c.shard)
                & (HELD.c.position == HISTORY.c.position),
            )
            .where(HELD.c.ledger == ledger, HELD.c.shard == shard, HELD.c.aggregate == aggregate)
            .order_by(HISTORY.c.position)
        )
        for at, recorded, said in self._decoded(connection, chosen):
            failed = attempt(rows, at, said, money=False)
            if failed is not None:
                held.blame(rows, at, recorded.aggregate, said.at_us, failed)
                return
            held.release(rows, ledger, shard, aggregate, at.position)
            self._events += 1
        self._keys += 1

    def _decoded(
        self, connection: Connection, chosen: Any
    ) -> Iterator[tuple[At, RecordedEvent, Any]]:
        for row in connection.execute(chosen).mappings().all():
            kind: Any = self._codec.kind(row["schema"])
            at = At(Ledger(row["ledger"]), row["shard"], row["height"], row["position"], kind.NAME)
            recorded = RecordedEvent(
                row["aggregate"], row["version"], row["schema"], row["payload"]
            )
            yield at, recorded, self._codec.decode(kind, row["payload"])
