"""``synor projections``: where the read models stand, what is held, and how to make them anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.cli_failures import Asked
from adapters.cli_output import Json, commands, document, noted, said, table
from adapters.cli_roles import HERE, Kafka, Network, deployment_of

if TYPE_CHECKING:
    from adapters.read_model import ReadModel
    from adapters.read_model_catalogue import Entry
    from adapters.roles import Deployment

app = commands()


@contextmanager
def _opened(deployment: Deployment) -> Iterator[ReadModel]:
    """The read models of the settings."""
    from adapters.read_model import ReadModel

    with closing(ReadModel(deployment.settings.read_model)) as read_model:
        yield read_model


@app.command("status")
def status(network: Network = HERE, kafka: Kafka = None, as_json: Json = False) -> None:
    """Show how far each ledger is followed, what is held and why, and what is being rebuilt."""
    from dataclasses import asdict

    from adapters.api_troubles import rebuild_of, troubles
    from adapters.roles_follow import projector_of

    deployment = deployment_of(network, kafka)
    with ExitStack() as stack:
        read_model = stack.enter_context(_opened(deployment))
        projector = projector_of(deployment.network, deployment.log(stack, "api"), read_model)
        projector.look()
        ledgers = projector.status()
        filling = read_model.filling()
        serving = read_model.catalogue.serving()
        with read_model.reading() as connection:
            found = troubles(connection)
    if as_json:
        document(
            {
                "generation": None if serving is None else serving.number,
                "version": None if serving is None else serving.made.version,
                "ledgers": [
                    {**asdict(each), "ledger": each.ledger.name.lower()} for each in ledgers
                ],
                "money_stopped": found.money,
                "held": found.held,
                "held_keys": found.held_keys,
                "held_events": found.held_events,
                "rebuild": None if filling is None else rebuild_of(filling),
            }
        )
        return
    table(
        ("Ledger", ">Height", ">Events behind", ">Behind", ">Records behind", "Stopped"),
        [
            (
                f"{each.ledger.name.lower()} {each.shard}",
                str(each.height),
                "?" if each.lag_events is None else str(each.lag_events),
                "?" if each.lag_us is None else f"{each.lag_us / 1_000_000:g} s",
                "?" if each.lag is None else str(each.lag),
                each.stopped or "no",
            )
            for each in ledgers
        ],
    )
    if filling is not None:
        said(_progress(filling))
    for sentence in found.sentences():
        said(sentence)
    if not found.sentences():
        said("Nothing is held; every view is complete.")


@app.command("retry")
def retry(network: Network = HERE, as_json: Json = False) -> None:
    """Take held events again, after what stood in their way is mended; safe while serving."""
    from adapters.api_troubles import troubles
    from adapters.read_model_retry import Retry

    deployment = deployment_of(network, None)
    with _opened(deployment) as read_model:
        done = Retry(read_model, deployment.network.codec).run()
        with read_model.reading() as connection:
            left = troubles(connection)
    if as_json:
        document(
            {
                "released_events": done.released_events,
                "released_keys": done.released_keys,
                "money_resumed": done.money_resumed,
                "held_events": left.held_events,
                "money_stopped": left.money,
            }
        )
        return
    said(
        f"{done.released_events} events of {done.released_keys} ids are taken; views of money go "
        f"on for {done.money_resumed} ledgers."
    )
    for sentence in left.sentences():
        said(sentence)


@app.command("rebuild")
def rebuild(network: Network = HERE, kafka: Kafka = None, as_json: Json = False) -> None:
    """Make the read models anew from the ledgers, while the old ones serve; then switch.

    Killed at any instant the old ones serve on, and the same command goes on from there.
    """
    from adapters.roles_clock import now_us
    from adapters.roles_follow import Rebuild

    deployment = deployment_of(network, kafka)
    with ExitStack() as stack:
        read_model = stack.enter_context(_opened(deployment))
        read_model.prepare(deployment.network.hash)
        read_model.sweep(now_us())
        log = deployment.log(stack, "api")
        made = stack.enter_context(closing(Rebuild(deployment.network, log, read_model, now_us)))
        show = stack.enter_context(_shown(as_json))
        while not made.turn(wait_s=0.1):
            show(made.entry)
        show(made.entry)
        entry = made.entry
    if as_json:
        document(
            {
                "generation": entry.number,
                "version": entry.made.version,
                "records": entry.done_records,
                "seconds": round((entry.told_us - entry.began_us) / 1_000_000, 3),
            }
        )
        return
    said(
        f"Generation {entry.number} serves, of {entry.done_records} records; the one before goes "
        "a minute from now."
    )


@app.command("drop")
def drop(
    network: Network = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="Really remove them.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the read models of every generation; nothing is lost, `synor serve` makes them."""
    if not yes:
        raise Asked(
            "This removes the read models, and who serves them stops.", "Add --yes to do it."
        )
    with _opened(deployment_of(network, None)) as read_model:
        read_model.drop()
    if as_json:
        document({"dropped": True})
        return
    said("The read models are removed.")


def _progress(entry: Entry) -> str:
    eta = "" if entry.eta_us is None else f", about {entry.eta_us // 1_000_000} s left"
    return (
        f"Being rebuilt: {entry.done_records} of {entry.total_records} records"
        f" in generation {entry.number}{eta}."
    )


@contextmanager
def _shown(as_json: bool) -> Iterator[Any]:
    """What shows a person how far it is: a bar on a terminal, else a line now and then."""
    import sys

    if as_json or not sys.stderr.isatty():
        told: list[int] = []

        def line(entry: Entry) -> None:
            if not told or entry.told_us - told[-1] >= 5_000_000:
                told.append(entry.told_us)
                noted(_progress(entry))

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("Rebuilding"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[eta]}"),
        console=Console(stderr=True),
    )
    task = bar.add_task("records", total=None, eta="")

    def draw(entry: Entry) -> None:
        eta = "" if entry.eta_us is None else f"about {entry.eta_us // 1_000_000} s left"
        bar.update(task, completed=entry.done_records, total=entry.total_records, eta=eta)

    with bar:
        yield draw
