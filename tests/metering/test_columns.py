"""Columns are read and judged exactly as the plain code does, only faster."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.batch_columns import (
    Columns,
    IdLists,
    columns_of,
    read_bytes_columns,
    read_long_columns,
    read_long_columns_many,
)
from domain.catalogue import VERSION_1, How
from domain.genesis import DAY_US
from domain.ids import QUANTITY_MAX, LeaseId, NodeId
from domain.readings import Judged, Moment, PlainReadings, rows_of
from domain.readings_columns import ColumnReadings
from domain.refusal import ARRAY_TOO_LONG, MALFORMED, Refused
from domain.signed import Signed
from domain.telemetry import Batch, BatchBytes
from tests.support.metering import EGRESS, GENESIS_HASH, ROW, TOKENS, codec, key_of, lease_of

LONGS = st.one_of(
    st.integers(-3, 200),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**n + d for n in (6, 7, 13, 14, 48, 55, 56, 62) for d in (-1, 0, 1)]),
)
IDS = st.binary(min_size=16, max_size=16)


def batches() -> st.SearchStrategy[Batch]:
    """Batches with columns of any lengths and values."""
    longs = st.lists(LONGS, max_size=40).map(tuple)
    return st.builds(
        Batch,
        nodes=st.lists(IDS.map(NodeId), max_size=4).map(tuple),
        leases=st.lists(IDS.map(LeaseId), max_size=4).map(tuple),
        lease=longs,
        resource=longs,
        generation=longs,
        time_us=longs,
        total=longs,
    )


def bytes_batches() -> st.SearchStrategy[BatchBytes]:
    """Batches with columns of any bytes."""
    column = st.binary(max_size=80)
    return st.builds(
        BatchBytes,
        nodes=st.lists(IDS.map(NodeId), max_size=4).map(tuple),
        leases=st.lists(IDS.map(LeaseId), max_size=4).map(tuple),
        lease=column,
        resource=column,
        generation=column,
        time_us=column,
        total=column,
    )


def in_blocks(draw: Any, items: list[bytes]) -> bytes:
    """An Avro array in blocks as some producers write them: with sizes, and several."""
    out = b""
    while items:
        count = draw(st.integers(1, len(items)))
        block, items = b"".join(items[:count]), items[count:]
        if draw(st.booleans()):
            out += zigzag(-count) + zigzag(len(block)) + block
        else:
            out += zigzag(count) + block
    return out + b"\x00"


def zigzag(number: int) -> bytes:
    """The Avro bytes of a long, written once more and plainly."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])


@st.composite
def blocked(draw: Any) -> bytes:
    """A batch whose arrays come in blocks, possibly with one wrong byte somewhere."""
    batch = draw(batches())
    out = b""
    for ids in (batch.nodes, batch.leases):
        out += in_blocks(draw, list(ids))
    for column in (batch.lease, batch.resource, batch.generation, batch.time_us, batch.total):
        out += in_blocks(draw, [zigzag(n) for n in column])
    return out


@st.composite
def mutated(draw: Any, good: st.SearchStrategy[bytes]) -> bytes:
    """Good bytes with a few changes: cut, overwritten, lengthened."""
    data = bytearray(draw(good))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["set", "insert", "cut", "append"]))
        if kind == "set" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 20))]
        else:
            data += draw(st.sampled_from([b"\x00", b"\x80", b"\x80\x00", b"\xff" * 11]))
    return bytes(data)


def plainly(kind: Any, data: bytes) -> Batch | BatchBytes | int:
    """What the codec makes of a payload: the record, or the number of the refusal.

    Columns say only that bytes are no batch; that an array is too long is then the codec's to say.
    """
    name: str = kind.NAME
    signed = Signed(
        genesis=GENESIS_HASH,
        kind=name,
        key=key_of("any"),
        session=0,
        number=0,
        schema=codec().fingerprint(kind),  # type: ignore[arg-type]
        payload=data,
        signature=bytes(64),
    )
    opened = codec().open_payload(signed)
    if isinstance(opened, Refused):
        return (MALFORMED if opened.code is ARRAY_TOO_LONG else opened.code).number
    assert isinstance(opened, Batch | BatchBytes)
    return opened


def outcome(read: Columns | Refused) -> Any:
    """A reading's outcome in comparable form."""
    if isinstance(read, Refused):
        return read.code.number
    columns = (read.lease, read.resource, read.generation, read.time_us, read.total)
    return read.nodes, read.leases, read.rows, *(column.tolist() for column in columns)


def expected(kind: Any, data: bytes) -> Any:
    """The same of the codec's reading."""
    plain = plainly(kind, data)
    return plain if isinstance(plain, int) else outcome(columns_of(plain))


ARBITRARY = st.one_of(
    st.binary(max_size=60),
    mutated(batches().map(lambda b: codec().encode(b))),
    mutated(blocked()),
)


@given(ARBITRARY)
def test_long_columns_are_read_as_the_codec_reads_them(data: bytes) -> None:
    """Design 3: strict, with every byte consumed; also in blocks, mutated and arbitrary bytes."""
    assert outcome(read_long_columns(data)) == expected(Batch, data)


@given(st.lists(ARBITRARY, max_size=6))
def test_batches_that_are_read_together_do_not_see_one_another(datas: list[bytes]) -> None:
    """A batch that breaks off leaves its neighbours whole."""
    lists = IdLists()
    for _ in range(2):
        found = [outcome(read) for read in read_long_columns_many(datas, lists)]
        assert found == [expected(Batch, data) for data in datas]


@given(st.one_of(st.binary(max_size=60), mutated(bytes_batches().map(lambda b: codec().encode(b)))))
def test_bytes_columns_are_read_as_the_codec_reads_them(data: bytes) -> None:
    """The second encoding is as strict."""
    assert outcome(read_bytes_columns(data)) == expected(BatchBytes, data)


@given(bytes_batches())
def test_bytes_columns_are_the_numbers_that_they_say(payload: BatchBytes) -> None:
    """Little-endian; a column without whole entries makes the batch one of unequal columns."""
    columns, rows = columns_of(payload), rows_of(payload)
    if rows is None:
        assert columns.rows == -1
    else:
        assert columns.plain() == rows


# Judging and folding

LEASES = [lease_of(number) for number in range(4)]
GENERATED = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 63, 64, -1])
NOW = 1_000_000
LIMITS = {TOKENS: 10**6, EGRESS: 2**62, ROW["function.duration"]: 10**12}


@st.composite
def rows(draw: Any, now_us: int) -> tuple[int, int, int, int, int]:
    """A row: mostly good, sometimes wrong in every way there is."""
    resources = [TOKENS, TOKENS, EGRESS, ROW["function.duration"], 0, 31, 32, 65_535]
    total = st.one_of(
        st.integers(0, 40),
        st.sampled_from([-1, QUANTITY_MAX, QUANTITY_MAX - 1, QUANTITY_MAX + 1, 2**63 - 1]),
        st.integers(0, 3 * NOW),
    )
    time_us = st.one_of(st.integers(0, 6), st.sampled_from([now_us - 501, now_us - 500, now_us]))
    return (
        draw(st.integers(0, 3)),
        draw(st.sampled_from(resources)),
        draw(GENERATED),
        now_us - draw(time_us),
        draw(total),
    )


@st.composite
def steps(draw: Any) -> list[Any]:
    """Batches at rising times, with leases that come, end and go between them."""
    now_us = NOW
    made: list[Any] = []
    for _ in range(draw(st.integers(1, 8))):
        now_us += draw(st.integers(0, 40))
        fresh = draw(st.lists(rows(now_us), max_size=draw(st.sampled_from([4, 40]))))
        if made and draw(st.booleans()):
            # A sender's rows say the same each time but for times and totals.
            fresh = [(*before[:3], *(draw(rows(now_us))[3:])) for before in made[-1][3]]
        made.append(
            (
                now_us,
                draw(st.sampled_from([[1], [2], [1, 2], [1, 2, 3]])),
                draw(st.sampled_from([1, 1, 2])),
                fresh,
                draw(st.sampled_from(["", "", "", "stop", "forget", "assign", "limits"])),
            )
        )
    return made


def moment(now_us: int) -> Moment:
    """A moment with small bounds."""
    return Moment(now_us, 3, 500, 20, 64, 3, DAY_US)


def batch_of(made: list[tuple[int, int, int, int, int]]) -> Batch:
    """A batch over all leases and one that is unknown."""
    columns = list(zip(*made, strict=True)) if made else [()] * 5
    return Batch(
        nodes=(),
        leases=(*LEASES[:3], lease_of(99)),
        lease=tuple(columns[0]),
        resource=tuple(columns[1]),
        generation=tuple(columns[2]),
        time_us=tuple(columns[3]),
        total=tuple(columns[4]),
    )


@given(steps())
def test_columns_judge_and_fold_as_the_plain_twin_does(made: list[Any]) -> None:
    """R1.4, R4.6–R4.8: the same rows refused, the same contradiction, the same quantities."""
    plain = PlainReadings()
    fast = ColumnReadings([row.how is How.METERED for row in VERSION_1])
    both: tuple[Any, Any] = (plain, fast)
    live = {0: 1, 1: 2, 2: 1}
    for readings in both:
        for number, node in live.items():
            readings.assign(LEASES[number], node, LIMITS)
            if number < 2:
                readings.activate(LEASES[number], NOW - 100)
    open_windows: list[int] = []
    for serial, (now_us, nodes, key, rows_, change) in enumerate(made):
        batch, window_us = batch_of(rows_), now_us // 50 * 50 + 50
        columns = columns_of(batch)
        judged: Judged = plain.judge(batch, nodes, key, moment(now_us))
        assert fast.judge(columns, nodes, key, moment(now_us)) == judged
        digest = bytes([serial]) * 32
        plain.fold(batch, judged.refused, key, digest, now_us, window_us)
        fast.fold(columns, judged.refused, key, digest, now_us, window_us)
        if window_us not in open_windows:
            open_windows.append(window_us)
        if len(open_windows) > 3:
            done = open_windows.pop(0)
            assert fast.changed(done) == plain.changed(done)
            for readings in both:
                readings.close(done)
        for readings in both:
            if change == "stop":
                readings.stop(LEASES[0], now_us + 10)
            elif change == "limits":
                readings.limits_moved()
            elif change == "forget" and 1 in live:
                readings.forget(LEASES[1])
            elif change == "assign" and 1 not in live:
                readings.assign(LEASES[1], 3, {EGRESS: 10**9})
                readings.activate(LEASES[1], now_us)
        if change == "forget":
            live.pop(1, None)
        elif change == "assign":
            live[1] = 3
    for window in open_windows:
        assert fast.changed(window) == plain.changed(window)


def test_readings_after_a_leases_last_window_are_never_those_of_the_next_lease() -> None:
    """A shard that learned late of an end has taken readings in windows that are not stated yet."""
    fast = ColumnReadings([row.how is How.METERED for row in VERSION_1])
    fast.assign(LEASES[0], 1, {EGRESS: 10**9})
    fast.activate(LEASES[0], NOW)
    for window_us, total in ((100, 5), (200, 6), (300, 7)):
        batch = columns_of(batch_of([(0, EGRESS, 0, NOW, total)]))
        judged = fast.judge(batch, [1], 1, moment(NOW))
        fast.fold(batch, judged.refused, 1, bytes(32), NOW, window_us)
    fast.forget(LEASES[0])
    fast.assign(LEASES[1], 1, {EGRESS: 10**9})
    assert [fast.changed(window_us) for window_us in (100, 200, 300)] == [{}, {}, {}]


def test_a_senders_rows_that_repeat_are_found_again_until_a_lease_changes() -> None:
    """Rows in the order of their slots are a part of the arrays; a new lease voids what is known.

    From the fifth batch on a lease in the middle is another of the same name.
    """
    plain, fast = PlainReadings(), ColumnReadings([row.how is How.METERED for row in VERSION_1])
    both: tuple[Any, Any] = (plain, fast)
    leases = [lease_of(200 + number) for number in range(20)]
    for readings in both:
        for lease in leases:
            readings.assign(lease, 1, {TOKENS: 10**6, EGRESS: 2**62})
            readings.activate(lease, NOW - 100)
    count = 2 * len(leases)
    for serial in range(1, 9):
        batch = Batch(
            nodes=(),
            leases=tuple(leases),
            lease=tuple(row // 2 for row in range(count)),
            resource=(TOKENS, EGRESS) * len(leases),
            generation=(0,) * count,
            time_us=(NOW + serial,) * count,
            total=tuple(serial * (1 + row % 5) for row in range(count)),
        )
        columns, at = columns_of(batch), moment(NOW + serial)
        judged = plain.judge(batch, [1], 1, at)
        assert fast.judge(columns, [1], 1, at) == judged
        assert bool(judged.refused) is (serial > 4)
        plain.fold(batch, judged.refused, 1, bytes([serial]) * 32, NOW, NOW + 50)
        fast.fold(columns, judged.refused, 1, bytes([serial]) * 32, NOW, NOW + 50)
        assert fast.changed(NOW + 50) == plain.changed(NOW + 50) != {}
        if serial == 4:
            for readings in both:
                readings.forget(leases[9])
                readings.assign(leases[9], 1, {EGRESS: 10**9})
                readings.activate(leases[9], NOW)
