"""Records that are not of the domain, for the rules of derivation; they stay out of ``RECORDS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, TypeVar, dataclass_transform

from domain.ids import Hash32, NodeId, Wide

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def sample(name: str) -> Callable[[type[T]], type[T]]:
    """Declare a record as ``domain.record.record`` does, without entering it anywhere."""

    def declare(cls: type[T]) -> type[T]:
        made: Any = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        made.NAME = name
        return made  # type: ignore[no-any-return]

    return declare


class Colour(Enum):
    """What it looks like."""

    RED = "RED"
    BLUE = "BLUE"


@sample("test.v1.Part")
class Part:
    """A part."""

    node: Annotated[NodeId, "a node"]
    amount: Annotated[Wide, "an amount"] = Wide(-1)


@sample("test.v1.Whole")
class Whole:
    """A whole of
    two lines.

    And a second paragraph.
    """

    number: Annotated[int, "a number"] = -3
    flag: Annotated[bool, "a flag"] = True
    text: Annotated[str, "a text"] = "é"
    data: Annotated[bytes, "some bytes"] = b"\x00\xff"
    digest: Annotated[Hash32, "a hash"] = Hash32(bytes(32))
    colour: Annotated[Colour, "a colour"] = Colour.BLUE
    part: Annotated[Part, "a part"] = Part(node=NodeId(b"n" * 16))
    parts: Annotated[tuple[Part, ...], "parts"] = ()
    colours: Annotated[tuple[Colour, ...], "colours"] = (Colour.RED,)
    maybe: Annotated[int | None, "perhaps a number"] = None
    nodes: Annotated[tuple[NodeId | None, ...] | None, "perhaps nodes"]
    rows: Annotated[tuple[tuple[int, ...], ...], "rows of numbers"] = ((1,), ())


@sample("test.v1.Floating")
class Floating:
    """Has a float."""

    share: Annotated[float, "a share"]


@sample("test.v1.Undocumented")
class Undocumented:
    """Has a field without a text."""

    number: int


@sample("test.v1.Nameless")
class Nameless:
    number: Annotated[int, "a number"]


@sample("test.v1.Empty")
class Empty:
    """Takes no bytes."""


@sample("test.v1.Bomb")
class Bomb:
    """Five bytes could ask for millions of items."""

    items: Annotated[tuple[Empty, ...], "nothings"]


@sample("test.v1.Endless")
class Endless:
    """Contains itself."""

    inner: Annotated[Endless | None, "another"]


@sample("test.v1.Checked")
class Checked:
    """Checks itself when constructed, which decoding would pass by."""

    number: Annotated[int, "a number"]

    def __post_init__(self) -> None:
        """Never called by the codec."""


@sample("test.v1.Made")
class Made:
    """Makes a default at run time."""

    numbers: Annotated[tuple[int, ...], "numbers"] = field(default_factory=tuple)


@sample("test.v1.Pair")
class Pair:
    """A tuple of fixed length has no place in Avro."""

    pair: Annotated[tuple[int, int], "two numbers"]


class Grade(Enum):
    """Values that are no symbols."""

    FIRST = 1


@sample("test.v1.Graded")
class Graded:
    """Has an enum of numbers."""

    grade: Annotated[Grade, "a grade"]


UNDERIVABLE: dict[type[Any], str] = {
    Floating: "no Avro type",
    Undocumented: "no text",
    Nameless: "no docstring",
    Bomb: "array bomb",
    Endless: "contains itself",
    Checked: "__post_init__",
    Made: "at run time",
    Pair: "no Avro type",
    Graded: "no Avro symbol",
}
