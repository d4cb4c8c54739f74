"""`freehold batches`: batches of calls (`/v1/messages/batches`): list, show, cancel. Making them is the SDKs' business."""

from typing import Any

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Commands
from freehold.cli._output import ago

PATH = "/v1/messages/batches"


@click.group(cls=Commands)
def batches() -> None:
    """List, show and cancel batches of calls."""


@batches.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@json_option
@click.pass_context
def list_batches(ctx: click.Context, *, limit: int, as_json: bool) -> None:
    """Batches, newest first."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("GET", PATH, query={"limit": limit})["data"]
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (
            one["id"],
            one["processing_status"],
            f"{_done(one)} of {sum(one['freehold'].values())}",
            str(one["freehold"]["errored"]),
            ago(one["created_at"]),
        )
        for one in found
    ]
    chosen.output.table(("BATCH", "STATUS", "DONE", "ERRORED", "MADE"), rows, empty="No batches.")


@batches.command()
@click.argument("batch_id")
@json_option
@click.pass_context
def show(ctx: click.Context, *, batch_id: str, as_json: bool) -> None:
    """Show how far a batch is."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("GET", f"{PATH}/{batch_id}")
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    counts = ", ".join(f"{count} {name}" for name, count in found["freehold"].items() if count)
    chosen.output.say(f"[bold]{found['id']}[/bold]  {found['processing_status']}: {counts}")
    ended = f"ended {ago(found['ended_at'])}" if found["ended_at"] else f"expires {found['expires_at']}"
    chosen.output.say(f"[dim]made {ago(found['created_at'])}, {ended}[/dim]")
    if found["results_url"]:
        chosen.output.say(f"[dim]results: {found['results_url']}[/dim]")


@batches.command()
@click.argument("batch_id")
@json_option
@click.pass_context
def cancel(ctx: click.Context, *, batch_id: str, as_json: bool) -> None:
    """End a batch early: what runs may finish, what waits is canceled."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("POST", f"{PATH}/{batch_id}/cancel")
    chosen.output.done(found, f"{found['id']} is {found['processing_status']}")


def _done(batch: dict[str, Any]) -> int:
    counts = batch["freehold"]
    return int(sum(counts.values()) - counts["processing"])
