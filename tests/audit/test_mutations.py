"""Every way to tamper with a ledger is found and named: class, topic, height, offset, field.

The forger is as strong as can be: it holds the writers' keys and makes every hash, root and
signature right again. What it cannot do is make wrong events follow from the inputs.
"""

from __future__ import annotations

import pytest

from adapters.audit import EXIT_CODES, Diverged
from adapters.bootstrap import audit, ledger_audit
from domain.commit import (
    LEDGER_TOPICS,
)
from tests.audit import mutations_of_events, mutations_of_inputs
from tests.audit.forge import Book
from tests.audit.mutations import MARKET, MUTATIONS
from tests.system.reference import reference, reference_hash
from tests.system.small import network

#: The modules that fill the table.
FILLED_BY = (mutations_of_inputs, mutations_of_events)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_named_by_class_topic_height_offset_and_field(name: str) -> None:
    """The ledger that was tampered with is audited by itself; then the audit of all stops too."""
    seat, mutate = MUTATIONS[name]
    system = reference()
    book = Book(system.network, system.log)
    expected = mutate(book)
    log = book.log()
    with pytest.raises(Diverged) as found:
        list(ledger_audit(system.network, log, *seat).run())
    diverged = found.value
    offset = expected.height if expected.offset is None else expected.offset
    assert (diverged.name, diverged.height, diverged.at, diverged.offset) == (
        expected.name,
        expected.height,
        expected.at,
        offset,
    )
    assert (diverged.ledger, diverged.shard) == seat
    assert diverged.exit_code == EXIT_CODES[expected.name]
    assert f"{LEDGER_TOPICS[seat[0]]}[{seat[1]}]" in str(diverged)
    with pytest.raises(Diverged):
        audit(system.network, log)


def test_the_book_of_an_unchanged_ledger_is_clean() -> None:
    """The forger's tools change nothing by themselves: a re-chained ledger is the same bytes."""
    system = reference()
    book = Book(system.network, system.log)
    for seat in system.network.ledgers():
        before = list(book.ledger(seat))
        book.forge(seat, 1, lambda commit: commit)
        assert book.ledger(seat) == before
    assert audit(system.network, book.log()).state_hash == reference_hash()


def test_a_copy_of_a_commit_at_the_end_is_noise_and_no_fault() -> None:
    """Anyone with the right to write may repeat what was written; it counts once."""
    system = reference()
    book = Book(system.network, system.log)
    book.ledger(MARKET).append(book.ledger(MARKET)[5])
    verdict = audit(system.network, book.log())
    assert verdict.reports[0].noise == 1
    assert verdict.state_hash == reference_hash()


def test_every_class_of_divergence_has_an_exit_code_of_its_own() -> None:
    """Scripts tell faults apart by the code alone; 0 to 9 are left to the shell and the CLI."""
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert all(10 <= code < 126 for code in EXIT_CODES.values())


def test_every_class_that_a_forger_can_cause_is_caused_here() -> None:
    """The table covers all classes but those that need a broken program, L1 or retention."""
    system = reference()
    caused = set()
    for seat, mutate in MUTATIONS.values():
        del seat
        caused.add(mutate(Book(system.network, system.log)).name)
    elsewhere = {
        "damaged",
        "unknown_rules",
        "inputs_deleted",
        "decoded_differs",
        "law_broken",
        "totals",
        "anchor",
    }
    assert caused | elsewhere == set(EXIT_CODES)


def test_the_network_of_the_reference_is_the_one_that_is_forged() -> None:
    """Topic ids are the incarnation's: a copied book is bound to the same ones."""
    system = reference()
    copied = Book(system.network, system.log).log()
    assert network(2).bound_topics(copied) == network(2).bound_topics(system.log)
