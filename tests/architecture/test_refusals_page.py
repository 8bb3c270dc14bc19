"""The page of refusals is what the program answers by."""

from adapters.kafka_broker import CHECKOUT
from adapters.refusals_page import page
from domain.refusal import CODES


def test_the_page_of_refusals_is_current() -> None:
    """Every refusal that the domain declares stands on it; `scripts/refusals` writes it."""
    text = page()
    assert (CHECKOUT / "docs" / "refusals.md").read_text() == text, "run scripts/refusals"
    assert all(f"| {number} | `{code.name}` |" in text for number, code in CODES.items())


def test_every_refusal_says_what_to_do() -> None:
    """A sentence, and a name that is words."""
    for code in CODES.values():
        assert code.remedy[0].isupper(), code
        assert code.remedy.endswith("."), code
        assert code.name.replace("_", "").isalnum(), code
