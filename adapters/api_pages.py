"""Pages for people: the same reads as the API, as plain HTML that a browser shows without scripts.

Amounts are exact: SYNOR with all nine decimals. Everything is escaped by the templates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any, Final

from fastapi import FastAPI, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from adapters import api_reads
from adapters.api_listings import LISTINGS, integer, octets, page
from adapters.api_problems import BAD_PARAMETER, NOT_FOUND, REBUILDING, ROWS_UNAVAILABLE, Problem
from adapters.api_troubles import troubles
from adapters.projector import LedgerStatus
from adapters.read_model import ReadModel
from domain.catalogue import base_unit
from domain.genesis import Genesis
from projections.tables import ACCOUNT, BID, LEASE, NODE, OFFER, PAYABLE, POSTING, PROVIDER

_NANO: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FEW: Final = {"limit": "10"}

#: What an id may name, and the page that shows it; for the look-up of an id.
FINDABLE: Final[Sequence[tuple[Any, str]]] = (
    (LEASE.c.lease, "/leases/{}"),
    (PROVIDER.c.provider, "/providers/{}"),
    (ACCOUNT.c.account, "/accounts/{}"),
    (NODE.c.node, "/v1/nodes/{}"),
    (BID.c.bid, "/v1/bids?bid={}"),
    (OFFER.c.offer, "/v1/offers?offer={}"),
)

Show = Callable[[Request, Connection], tuple[str, dict[str, Any]]]


def synor(nano: int) -> str:
    """An amount in SYNOR with nine decimals, exact."""
    whole, rest = divmod(abs(nano), _NANO)
    return f"{'−' if nano < 0 else ''}{whole:,}.{rest:09d}"


def moment(at_us: int | None) -> str:
    """An instant in UTC, to the second where it is whole and else to the microsecond."""
    if at_us is None:
        return "–"
    try:
        at = _EPOCH + timedelta(microseconds=at_us)
    except OverflowError:
        return f"{at_us} µs"
    text = at.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{at.microsecond:06d}" if at.microsecond else text


def second(at_us: int | None) -> str:
    """An instant in UTC, cut to the second: for lists, beside the exact one."""
    return moment(None if at_us is None else at_us - at_us % 1_000_000)


def duration(us: int | None) -> str:
    """A length of time in its two largest units."""
    if us is None:
        return "–"
    parts = []
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000)):
        count, us = divmod(us, size)
        if count:
            parts.append(f"{count} {unit}")
    seconds, rest = divmod(us, 1_000_000)
    if seconds or rest or not parts:
        parts.append(f"{seconds}{f'.{rest:06d}'.rstrip('0') if rest else ''} s")
    return " ".join(parts[:2])


def milli(quantity: int) -> str:
    """Thousandths as a number: devices, cores, pieces."""
    whole, rest = divmod(quantity, 1000)
    return f"{whole:,}" + (f".{rest:03d}".rstrip("0") if rest else "")


def percent(ppm: int | None) -> str:
    """Millionths as a percentage, exact."""
    if ppm is None:
        return "–"
    return f"{ppm // 10_000}.{ppm % 10_000:04d} %"


def words(name: str) -> str:
    """A state or a reason as words."""
    return name.replace("_", " ").lower()


def environment() -> Environment:
    """The templates, which escape all that they are given."""
    made = Environment(
        loader=PackageLoader("adapters", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        synor=synor,
        moment=moment,
        second=second,
        duration=duration,
        milli=milli,
        percent=percent,
        words=words,
        base_unit=base_unit,
        grouped=lambda number: f"{number:,}",
    )
    return made


class Pages:
    """The pages and the style sheet; all else is refused by the policy of the answers."""

    def __init__(
        self,
        read_model: ReadModel,
        genesis: Genesis,
        shards: int,
        status: Callable[[], Sequence[LedgerStatus]] | None,
    ) -> None:
        """Read from a read model; ``status`` adds how far the log is ahead."""
        self._read_model = read_model
        self._genesis = genesis
        self._shards = shards
        self._status = status
        self._templates = environment()
        self._style = resources.files("adapters").joinpath("pages/style.css").read_bytes()

    def add(self, app: FastAPI) -> None:
        """Every page."""
        shows: Mapping[str, Show] = {
            "/": self.overview,
            "/book": self.book,
            "/leases": self.leases,
            "/leases/{lease}": self.lease,
            "/providers": self.providers,
            "/providers/{provider}": self.provider,
            "/accounts": self.accounts,
            "/accounts/{account}": self.account,
            "/epochs": self.epochs,
            "/epochs/{number}": self.epoch,
        }
        for path, show in shows.items():
            app.add_api_route(path, self._endpoint(show), include_in_schema=False, name=path)
        app.add_api_route("/find", self._find, include_in_schema=False)
        app.add_api_route("/style.css", self._style_sheet, include_in_schema=False)

    def problem(self, problem: Problem) -> Response:
        """A problem as a page; it names no position where none can be read."""
        values = {"problem": problem}
        if problem.code in (REBUILDING, ROWS_UNAVAILABLE):
            return self._rendered("problem.html", None, problem.status, values)
        with self._read_model.reading() as connection:
            return self._page("problem.html", connection, problem.status, values)

    # What they show

    def overview(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """Where the ledgers stand, what is traded, what was last."""
        found = troubles(connection)
        stopped = {each["ledger"] for each in found.money}

        def sums(name: str) -> Sequence[Mapping[str, Any]]:
            """Of a view of money; nothing while it stands still."""
            return () if stopped else page(connection, LISTINGS[name], _FEW).rows

        return "overview.html", {
            "ledgers": api_reads.followed(connection),
            "log": {each.application: each for each in (self._status() if self._status else ())},
            "troubles": found,
            "filling": self._read_model.filling(),
            "instruments": page(connection, LISTINGS["instruments"], {}).rows,
            "leases": sums("leases"),
            "epochs": sums("epochs"),
            "slashes": sums("slashes"),
        }

    def book(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """Instruments, and the book and last trades of the one that is chosen."""
        instruments = page(connection, LISTINGS["instruments"], {"limit": "200"}).rows
        chosen = request.query_params.get("instrument")
        found: dict[str, Any] | None = None
        if chosen is not None:
            found = api_reads.book(connection, octets("instrument", chosen), 2)
        elif instruments:
            found = api_reads.book(connection, instruments[0]["instrument"], 2)
        rounds, trades = self._rounds(connection, found)
        return "book.html", {
            "instruments": instruments,
            "book": found,
            "rounds": rounds,
            "trades": trades,
        }

    def _rounds(self, connection: Connection, book: dict[str, Any] | None) -> tuple[Any, Any]:
        if book is None:
            return (), ()
        of = {"instrument": book["instrument"]["instrument"].hex(), **_FEW}
        return (
            page(connection, LISTINGS["rounds"], {**of, "cleared": "true"}).rows,
            page(connection, LISTINGS["trades"], of).rows,
        )

    def leases(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """Latest first, by state if asked."""
        found = page(connection, LISTINGS["leases"], _given(request))
        return "leases.html", {"found": found}

    def lease(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """One lease with its lines and its money."""
        lease = octets("lease", request.path_params["lease"])
        return "lease.html", {
            "lease": api_reads.lease(connection, lease),
            "journal": page(
                connection, LISTINGS["journal"], _given(request), [POSTING.c.owner == lease]
            ),
        }

    def providers(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """Every provider."""
        return "providers.html", {"found": page(connection, LISTINGS["providers"], _given(request))}

    def provider(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """One scorecard."""
        provider = octets("provider", request.path_params["provider"])
        of = {"provider": provider.hex()}
        return "provider.html", {
            "provider": api_reads.provider(connection, provider),
            "nodes": page(connection, LISTINGS["nodes"], {**of, "limit": "100"}),
            "leases": page(connection, LISTINGS["leases"], {**of, **_FEW}),
        }

    def accounts(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """Every account."""
        return "accounts.html", {"found": page(connection, LISTINGS["accounts"], _given(request))}

    def account(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """One account with its purses and journal."""
        account = octets("account", request.path_params["account"])
        journal = page(
            connection, LISTINGS["journal"], _given(request), [POSTING.c.account == account]
        )
        return "account.html", {
            "account": api_reads.account(connection, account),
            "journal": journal,
        }

    def epochs(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """Latest first."""
        return "epochs.html", {"found": page(connection, LISTINGS["epochs"], _given(request))}

    def epoch(self, request: Request, connection: Connection) -> tuple[str, dict[str, Any]]:
        """One epoch with its checkpoint and payables."""
        number = integer("number", request.path_params["number"])
        return "epoch.html", {
            "epoch": api_reads.epoch(connection, number),
            "payables": page(
                connection, LISTINGS["payables"], _given(request), [PAYABLE.c.epoch == number]
            ),
        }

    # How

    def _endpoint(self, show: Show) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(self._shown, show, request)

        return endpoint

    def _shown(self, show: Show, request: Request) -> Response:
        with self._read_model.reading() as connection:
            template, values = show(request, connection)
            # The next page is asked for with the same filters, or its cursor would not fit.
            given = _given(request)
            return self._page(template, connection, 200, {"given": given, **values})

    def _page(
        self, template: str, connection: Connection, status: int, values: Mapping[str, Any]
    ) -> Response:
        position = api_reads.heights(connection, self._shards)
        return self._rendered(template, position, status, values)

    def _rendered(
        self,
        template: str,
        position: Mapping[str, Any] | None,
        status: int,
        values: Mapping[str, Any],
    ) -> Response:
        text = self._templates.get_template(template).render(
            position=position, network=self._genesis.network, **values
        )
        return Response(text, status_code=status, media_type="text/html; charset=utf-8")

    async def _find(self, request: Request) -> Response:
        return await run_in_threadpool(self._found, request.query_params.get("id", ""))

    def _found(self, text: str) -> Response:
        name = octets("id", text.strip())
        with self._read_model.reading() as connection:
            for column, path in FINDABLE:
                if api_reads.maybe(connection, column.table, **{column.name: name}) is not None:
                    return RedirectResponse(path.format(name.hex()), status_code=303)
        raise Problem(NOT_FOUND, f"nothing here is called {name.hex()[:80]}")

    async def _style_sheet(self) -> Response:
        return Response(self._style, media_type="text/css; charset=utf-8")


def _given(request: Request) -> dict[str, str]:
    found = dict(request.query_params.multi_items())
    if len(found) != len(request.query_params.multi_items()):
        raise Problem(BAD_PARAMETER, "a parameter is given twice")
    return {name: value for name, value in found.items() if value}
