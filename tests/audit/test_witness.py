"""The second reader: what our codec makes of bytes, fastavro makes of them too, or it is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapters.audit import Diverged
from adapters.bootstrap import audit, ledger_audit
from adapters.fastavro_witness import FastavroWitness, difference
from domain.codec import Codec
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC, Ledger
from domain.epoch import EpochCut
from domain.ids import Wide
from domain.lease import LeaseEnded
from domain.signed import Signed
from tests.audit.forge import Book
from tests.system.reference import reference


def recorded(kind: type[Any]) -> Any:
    """An event of the small system, the last of its kind."""
    system = reference()
    book = Book(system.network, system.log)
    found = None
    for commit in book.commits((Ledger.MARKET, 0)):
        found = next((e for e in book.events(commit) if isinstance(e, kind)), found)
    assert found is not None
    return found


def test_every_record_of_a_whole_ledger_is_witnessed() -> None:
    """Commits, events, signed inputs and commands of all ledgers are read twice, and agree."""
    system = reference()
    verdict = audit(system.network, system.log)
    for report in verdict.reports:
        assert report.witnessed >= report.commits + report.events
    codec = system.network.codec
    every = FastavroWitness(codec, telemetry_one_in=1)
    for topic, partition in ((COMMANDS_TOPIC, 0), (TELEMETRY_TOPIC, 0), (TELEMETRY_TOPIC, 1)):
        values = Book(system.network, system.log).lists[topic, partition]
        assert [every.input(value) for value in values] == [None] * len(values)


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        (LeaseEnded, {"at_us": 1}, "at_us"),
        (LeaseEnded, {"was_active": 1}, "was_active"),
        (EpochCut, {"authorised_nano": Wide(-1)}, "authorised_nano"),
        (EpochCut, {"payables": ()}, "payables"),
        (EpochCut, {"state_root": b""}, "state_root"),
    ],
)
def test_a_codec_that_reads_otherwise_than_fastavro_is_named(
    kind: type[Any], changes: dict[str, Any], field: str
) -> None:
    """Numbers, booleans, 128-bit numbers, arrays and fixed bytes: the field is named."""
    codec = reference().network.codec
    event = recorded(kind)
    witness = FastavroWitness(codec)
    assert witness.record(event, codec.encode(event)) is None
    said = witness.record(replace(event, **changes), codec.encode(event))
    assert said is not None
    assert f".{field}" in said


def test_bytes_after_a_record_and_bytes_too_few_are_named() -> None:
    """fastavro alone would ignore the first."""
    codec = reference().network.codec
    event = recorded(EpochCut)
    witness = FastavroWitness(codec)
    assert "unread" in (witness.record(event, codec.encode(event) + b"\0") or "")
    assert "cannot read" in (witness.record(event, codec.encode(event)[:-9]) or "")


def test_an_audit_whose_codec_is_wrong_says_so() -> None:
    """A reader of envelopes that is off by one would agree with itself for ever."""
    system = reference()
    one = ledger_audit(system.network, system.log, Ledger.MARKET, 0)
    codec = system.network.codec

    class OffByOne:
        def open_signed(self, value: bytes) -> Any:
            signed = codec.open_signed(value)
            return replace(signed, session=signed.session + 1) if isinstance(signed, Signed) else 0

        def __getattr__(self, name: str) -> Any:
            return getattr(codec, name)

    wrong: Any = OffByOne()
    checked: Codec = wrong
    one._witness = FastavroWitness(checked)
    with pytest.raises(Diverged, match="session") as found:
        list(one.run())
    assert found.value.name == "decoded_differs"


def test_values_of_different_types_differ() -> None:
    """True is not 1, and an absent value is not zero."""
    assert difference(True, 1, "at") is not None
    assert difference(None, 0, "at") is not None
    assert difference(None, None, "at") is None
