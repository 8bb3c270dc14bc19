"""What people type and read: amounts, quantities, durations, ids. Never by way of a float."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from adapters.cli_failures import Asked
from domain.catalogue import IN_MB
from domain.ids import Address

NANO: Final = 1_000_000_000
_DECIMAL: Final = re.compile(r"(\d+)(?:\.(\d+))?", re.ASCII)
_PART: Final = re.compile(r"(\d+)(us|ms|s|m|h|d)", re.ASCII)
_UNIT_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_WHOLE_MAX: Final = 30
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _scaled(text: str, places: int, what: str, example: str) -> int:
    found = _DECIMAL.fullmatch(text.strip().replace("_", ""))
    if found is None or len(found[1]) > _WHOLE_MAX:
        raise Asked(f"{text!r} is not {what}.", f"Write it as in {example}.")
    fraction = found[2] or ""
    if len(fraction.rstrip("0")) > places:
        raise Asked(
            f"{text!r} has more than {places} places after the point.", f"Write it as in {example}."
        )
    return int(found[1] + fraction.rstrip("0").ljust(places, "0"))


def synor(text: str) -> int:
    """An amount of SYNOR as nano: exact to nine places."""
    return _scaled(text, 9, "an amount of SYNOR", "12.5")


def some_synor(text: str) -> int:
    """An amount of SYNOR above zero."""
    nano = synor(text)
    if nano == 0:
        raise Asked("The amount is zero.", "Give an amount above zero.")
    return nano


def thousandths(text: str) -> int:
    """Devices (or cores, or pieces) as thousandths."""
    return _scaled(text, 3, "a number of devices", "1 or 0.5")


def duration(text: str) -> int:
    """A duration in µs, written as 90s, 10m, 1h30m, 30d."""
    compact = text.strip().replace(" ", "")
    parts = _PART.findall(compact)
    if not parts or "".join(n + u for n, u in parts) != compact or len(compact) > _WHOLE_MAX:
        raise Asked(f"{text!r} is not a duration.", "Write it as in 90s, 10m, 1h30m or 30d.")
    return sum(int(number) * _UNIT_US[unit] for number, unit in parts)


def share(text: str) -> int:
    """A percentage as parts per million: 99.9 is 999,000."""
    ppm = _scaled(text.removesuffix("%"), 4, "a percentage", "99.9")
    if ppm > 1_000_000:
        raise Asked(f"{text!r} is above 100 %.", "Write it as in 99.9.")
    return ppm


def hexadecimal(text: str, length: int, what: str) -> bytes:
    """Bytes of a known length, as this program shows them."""
    try:
        found = bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != length:
        raise Asked(
            f"{text!r} is not the id of {what}.",
            f"An id has {2 * length} hexadecimal digits; copy it from where it was shown.",
        )
    return found


def region(text: str) -> str:
    """The name of a region: a market of its own, so it is never empty."""
    if not text.strip():
        raise Asked("The region has no name.", "Write one of those that `synor node ls` shows.")
    return text


def evm_address(text: str) -> Address:
    """An EVM address; where letters of both cases stand in it, they are a checksum (EIP-55)."""
    digits = text.strip().removeprefix("0x")
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        found = b""
    if len(found) != 20:
        raise Asked(f"{text!r} is not an EVM address.", "It has 40 hexadecimal digits after 0x.")
    if found == bytes(20):
        raise Asked("Nobody has the address zero.", "Name one whose key you have.")
    if digits not in (digits.lower(), digits.upper()):
        from eth_utils.address import is_checksum_address

        if not is_checksum_address("0x" + digits):
            raise Asked(
                f"{text} is mistyped: its upper and lower case letters do not fit its digits.",
                "Copy it again from where it was shown.",
            )
    return Address(found)


def shown_synor(nano: int) -> str:
    """Nano as SYNOR, exact, without zeros that say nothing."""
    sign = "-" if nano < 0 else ""
    whole, rest = divmod(abs(nano), NANO)
    fraction = f"{rest:09d}".rstrip("0")
    return f"{sign}{whole:,}{'.' + fraction if fraction else ''}"


def shown_thousandths(milli: int) -> str:
    """Thousandths as a number of devices."""
    whole, rest = divmod(milli, 1000)
    fraction = f"{rest:03d}".rstrip("0")
    return f"{whole:,}{'.' + fraction if fraction else ''}"


def shown_time(us: int | None) -> str:
    """An instant in UTC, to the second; an empty text for none."""
    if us is None:
        return ""
    return (_EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%d %H:%M:%S")


def shown_duration(us: int) -> str:
    """A duration in its two largest units."""
    if us == 0:
        return "0s"
    if us < 1_000_000:
        return f"{us} µs"
    parts = []
    rest = us
    for unit in ("d", "h", "m", "s"):
        number, rest = divmod(rest, _UNIT_US[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts[:2])


_SIZE: Final = re.compile(r"(\d+)(MB|GB|TB)", re.ASCII)
_SIZE_MB: Final = {"MB": 1, "GB": 1_000, "TB": 1_000_000}
_RATE: Final = re.compile(r"(\d+)([kMG]?)(?:B?/s)?", re.ASCII)
_RATE_FACTOR: Final = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def named(text: str) -> tuple[str, str]:
    """A resource and its value, written RESOURCE=VALUE."""
    name, sign, value = text.partition("=")
    if not sign or not name or not value:
        raise Asked(f"{text!r} is not RESOURCE=VALUE.", "Write it as in gpu.h100=1.")
    return name.strip(), value.strip()


def allocation(text: str) -> tuple[str, int]:
    """So much of a resource: gpu.h100=1, container.cpu=8, container.memory=16GB."""
    name, value = named(text)
    if name not in IN_MB:
        return name, thousandths(value)
    found = _SIZE.fullmatch(value)
    if found is None:
        raise Asked(f"{value!r} is not a size.", f"Write it as in {name}=16GB or {name}=500MB.")
    return name, int(found[1]) * _SIZE_MB[found[2]]


def limit(text: str) -> tuple[str, int]:
    """The most a second of a metered resource: network.egress=10MB/s, inference.tokens=500."""
    name, value = named(text)
    found = _RATE.fullmatch(value)
    if found is None:
        raise Asked(
            f"{value!r} is not a limit.", "Write base units a second, as in network.egress=10MB/s."
        )
    return name, int(found[1]) * _RATE_FACTOR[found[2]]


def shown_amount(resource: str, amount: int) -> str:
    """An amount of a resource as people write it."""
    if resource in IN_MB:
        return f"{amount // 1000:,}GB" if amount % 1000 == 0 else f"{amount:,}MB"
    return shown_thousandths(amount)
