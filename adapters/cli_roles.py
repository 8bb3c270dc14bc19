"""The roles of a network that runs as many processes, as commands."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.cli_failures import Asked, Failure, Unable, failure_of
from adapters.cli_output import Json, commands, document, noted, said, table

if TYPE_CHECKING:
    from adapters.metrics import Metrics
    from adapters.roles import Deployment
    from adapters.roles_check import LedgerFound
    from adapters.up_web import Server

topics = commands()
work = commands()

Network = Annotated[
    Path,
    typer.Option(
        "--network", envvar="SYNOR_NETWORK", help="Settings of the network, or their folder."
    ),
]
Kafka = Annotated[
    str | None, typer.Option("--kafka", help="Brokers, instead of those of the settings.")
]
Genesis = Annotated[
    Path | None, typer.Option("--genesis", help="Genesis, instead of that of the settings.")
]

Principals = Annotated[
    Path | None,
    typer.Option(
        "--principals",
        help='TOML file of role = ["user", …]; default: the users of [log.security].',
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port on loopback for Prometheus; none if not given."),
]

HERE = Path()


def deployment_of(network: Path, kafka: str | None, genesis: Path | None = None) -> Deployment:
    """The network of the settings, with what the command line puts in their place."""
    from adapters import roles, settings

    found = settings.load(network)
    if kafka is not None:
        log = replace(found.log, kind=settings.LogKind.KAFKA, bootstrap=kafka, file=None)
        found = replace(found, log=log)
    if genesis is not None:
        found = replace(found, genesis=genesis)
    return roles.Deployment(found)


@contextmanager
def _until_stopped() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class Role:
    """What a role is run with: its network, when to end, where it speaks, its figures."""

    deployment: Deployment
    stop: threading.Event
    say: Callable[[str], None]
    as_json: bool
    metrics: Metrics | None

    def run(self, what: Callable[..., None]) -> None:
        """Run it, as the functions of ``adapters.roles`` are run."""
        what(self.deployment, self.stop, self.say, self.metrics)


@contextmanager
def _role(
    network: Path, kafka: str | None, metrics_port: int | None, as_json: bool
) -> Iterator[Role]:
    """A role until it is told to stop; its figures on a port of loopback where one is asked for."""
    deployment = deployment_of(network, kafka)
    say = noted if as_json else said
    with ExitStack() as stack:
        stop = stack.enter_context(_until_stopped())
        made: Metrics | None = None
        if metrics_port is not None:
            from adapters.metrics import LOOPBACK, Metrics

            made = Metrics()
            served = made.serve(metrics_port)
            stack.callback(served.stop)
            say(f"Figures for Prometheus at http://{LOOPBACK}:{served.port}/metrics")
        yield Role(deployment, stop, say, as_json, made)


def as_role(body: Callable[..., None]) -> Callable[..., None]:
    """A command that runs a role: the options of every role, and those that ``body`` adds.

    The command's signature is made here, so that each option of a role is written once.
    """
    own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]

    def command(
        network: Path = HERE,
        kafka: str | None = None,
        metrics_port: int | None = None,
        as_json: bool = False,
        **chosen: Any,
    ) -> None:
        with _role(network, kafka, metrics_port, as_json) as role:
            body(role, **chosen)

    common = [
        inspect.Parameter(
            name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value, annotation=of
        )
        for name, of, value in (
            ("network", Network, HERE),
            ("kafka", Kafka, None),
            ("metrics_port", MetricsPort, None),
            ("as_json", Json, False),
        )
    ]
    parameters = [*common[:2], *own, *common[2:]]
    command.__name__, command.__doc__ = body.__name__, body.__doc__
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


# Topics


@topics.command("create")
def create(
    network: Network = HERE,
    kafka: Kafka = None,
    genesis: Genesis = None,
    principals: Principals = None,
    new_passwords: Annotated[
        bool,
        typer.Option("--new-passwords", help="Make a SCRAM user for each role, with its file."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Create every topic of the network that is absent, with the settings that a ledger needs.

    On a secured Kafka, as the brokers' administrator: users and rights of each role too.
    """
    from adapters import roles_security, roles_topics

    deployment = deployment_of(network, kafka, genesis)
    users = roles_security.principals_of(deployment, principals)
    if new_passwords and users is None:
        raise Asked("--new-passwords is for a secured Kafka.", "Write [log.security] first.")
    roles_topics.create(deployment)
    if users is not None:
        roles_security.secure(deployment, users, new_passwords=new_passwords)
    made = deployment.network.topics()
    if as_json:
        document({"topics": made, "principals": users})
        return
    for topic, partitions in sorted(made.items()):
        said(f"{topic}  {partitions}")
    for role, names in (users or {}).items():
        said(f"{role}  {', '.join(names)}")
    said("Every topic is there, as the ledger needs it.")


@topics.command("check")
def check(
    network: Network = HERE,
    kafka: Kafka = None,
    genesis: Genesis = None,
    principals: Principals = None,
    settings_only: Annotated[
        bool, typer.Option("--settings-only", help="Do not read the ledgers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check topics, rights, and by the reader rule every ledger on them.

    A ledger must not fork and must end no earlier than its readers have been: other ledgers, the
    workers' indexes, the read model, the vault. Records that do not count are told by why. Exits 3
    where a topic or right is missing or weaker than needed, and where a ledger has a fault with
    the code that `synor audit` has for it: 10 fork, 11 truncated, 12 corrupt, 13 unknown_version,
    26 inputs_deleted.
    """
    from adapters import roles_security, roles_topics

    deployment = deployment_of(network, kafka, genesis)
    complaints = [*roles_topics.check(deployment)]
    users = roles_security.principals_of(deployment, principals)
    if users is not None:
        complaints += roles_security.weaker(deployment, users)
    missing = any("does not exist" in each for each in complaints)
    found = [] if settings_only or missing else roles_topics.look_over(deployment)
    fault = next((each.fault for each in found if each.fault is not None), None)
    failure: Failure | None = None
    if fault is not None:
        failure = failure_of(fault)
    elif complaints:
        remedy = "Change the settings of topics and ACLs on the brokers."
        failure = Unable(" ".join(complaints), remedy)
    if as_json:
        told: dict[str, Any] = {"complaints": complaints, "ledgers": [*map(_ledger, found)]}
        if failure is not None:
            told |= {"error": failure.what, "remedy": failure.remedy, "exit": failure.code}
        document(told)
        raise typer.Exit(0 if failure is None else failure.code)
    if found:
        _show(found)
    if failure is not None:
        for each in found:
            if each.fault is not None and each.fault is not fault:
                noted(f"synor: {each.fault}")
        raise failure
    said("Every topic is there, as the ledger needs it.")


def _ledger(found: LedgerFound) -> dict[str, Any]:
    fault = found.fault
    return {
        "topic": found.topic,
        "partition": found.shard,
        "height": found.height,
        "end": found.end,
        "noise": dict(sorted(found.noise.items())),
        "fault": None
        if fault is None
        else {
            "name": fault.name,
            "height": fault.height,
            "offset": fault.offset,
            "why": fault.why,
            "remedy": failure_of(fault).remedy,
        },
    }


def _show(found: Sequence[LedgerFound]) -> None:
    rows = [
        (
            f"{each.topic}[{each.shard}]",
            f"{each.height:,}",
            f"{each.end:,}",
            ", ".join(f"{count:,} {why}" for why, count in sorted(each.noise.items())) or "none",
            "sound" if each.fault is None else each.fault.name,
        )
        for each in found
    ]
    table(("ledger", ">height", ">end", "records that do not count", ""), rows)


# Processors


@work.command("market")
@as_role
def market(role: Role) -> None:
    """Run the market: accounts, stake, orders, rounds, leases, slashes, epochs."""
    _work(role, "MARKET")


@work.command("metering")
@as_role
def metering(
    role: Role,
    shards: Annotated[
        str | None, typer.Option(help="Which, as 0,1 or 0-3; default: all of them.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Share the shards with all workers of this consumer group, on Kafka."),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option(help="In a group: a name that keeps its shards over a quick restart."),
    ] = None,
) -> None:
    """Run metering shards: telemetry, coverage, statements."""
    if group is None:
        if member is not None:
            raise Asked("--member is a name in a group.", "Name the --group too.")
        _work(role, "METERING", shards)
        return
    if shards is not None:
        raise Asked("--shards and --group are two ways to share the work.", "Take one of them.")
    from adapters.roles_group import work_in_group

    work_in_group(role.deployment, group, member, role.stop, role.say, role.metrics)


@work.command("settlement")
@as_role
def settlement(role: Role) -> None:
    """Run settlement: checkpoints and payout trees."""
    _work(role, "SETTLEMENT")


@work.command("events")
@as_role
def events(role: Role) -> None:
    """Publish every event of the ledgers as a CloudEvent to synor.events.v1."""
    from adapters import roles

    role.run(roles.events)


def _work(role: Role, name: str, shards: str | None = None) -> None:
    from adapters import roles
    from domain.commit import Ledger

    ledger = Ledger[name]
    most = role.deployment.network.shards if ledger is Ledger.METERING else 1
    chosen = tuple(range(most)) if shards is None else shards_of(shards, most)
    roles.work(role.deployment, ledger, chosen, role.stop, role.say, role.metrics)


def shards_of(text: str, most: int) -> tuple[int, ...]:
    """Shards written as 0,1 or 0-3."""
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        last = high if dash else low
        if not (low.isascii() and low.isdigit() and last.isascii() and last.isdigit()):
            raise Asked(f"{text!r} names no shards.", "Write them as 0,1 or 0-3.")
        found += range(int(low), int(last) + 1)
    if not found or max(found) >= most or len({*found}) < len(found):
        raise Asked(f"{text!r} names no shards of this network.", f"It has 0 to {most - 1}.")
    return tuple(found)


# The others


@as_role
def clock(role: Role) -> None:
    """Tick every second to every partition; any number of clocks may run."""
    from adapters import roles

    role.run(roles.clock)


@as_role
def watch(role: Role) -> None:
    """Sign into the commands what is final in the vault on the L1."""
    from adapters import roles

    role.run(roles.watch)


@as_role
def send(role: Role) -> None:
    """Take every checkpoint to the L1; one process for each signing key."""
    from adapters import roles

    role.run(roles.send)


@as_role
def serve(
    role: Role,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Instead of that of the settings.")
    ] = None,
) -> None:
    """Follow the ledgers into the read models, and serve the query API and its pages."""
    from adapters import roles

    settings = role.deployment.settings
    if port is not None:
        settings = role.deployment.settings = replace(settings, api_port=port)

    def ready(web: Server) -> None:
        url = f"http://{settings.api_host}:{web.port}"
        if role.as_json:
            document({"api": url, "genesis_hash": role.deployment.network.hash})
        else:
            said(f"API and pages at {url}")

    roles.serve(role.deployment, role.stop, noted, ready, role.metrics)
