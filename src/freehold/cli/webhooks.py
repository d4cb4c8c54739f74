"""`freehold webhooks`: addresses that are told what happens, and what they were told."""

import time
from typing import Any, Final

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Commands
from freehold.cli._output import ago
from freehold.client.client import Client

TEST_S_MAX: Final = 15.0
POLL_S: Final = 0.2
SHOWN: Final = 50


@click.group(cls=Commands)
def webhooks() -> None:
    """Declare webhooks, test them, and look at what they were told."""


@webhooks.command("list")
@json_option
@click.pass_context
def list_webhooks(ctx: click.Context, *, as_json: bool) -> None:
    """Webhooks, and how they do."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("GET", "/v1/webhooks")["data"]
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (one["id"], one["status"], str(one["pending_count"]), ", ".join(one["events"]), one["url"])
        for one in found
    ]
    chosen.output.table(("WEBHOOK", "STATUS", "PENDING", "EVENTS", "URL"), rows, empty="No webhooks.")
    for one in found:
        if one["disabled_reason"]:
            chosen.output.warn(f"{one['id']} is disabled: {one['disabled_reason']}")


@webhooks.command()
@click.argument("name")
@click.argument("url")
@click.option(
    "--event",
    "events",
    multiple=True,
    required=True,
    metavar="EVENT",
    help="Like session.idled, or session.*; repeatable.",
)
@click.option("--description", default="", help="What it is for.")
@json_option
@click.pass_context
def add(
    ctx: click.Context, *, name: str, url: str, events: tuple[str, ...], description: str, as_json: bool
) -> None:
    """Declare a webhook called NAME at URL and print its secret, this once."""
    chosen = settings(ctx)
    body = {"name": name, "url": url, "events": events, "description": description}
    with connected(chosen) as client:
        made = client.request("POST", "/v1/webhooks", body=body)
    _secret(chosen, made)


@webhooks.command()
@click.argument("name")
@json_option
@click.pass_context
def remove(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """Take a webhook out of use, with what it was still to be told."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        gone = client.request("DELETE", f"/v1/webhooks/{name}")
    chosen.output.done(gone, f"removed {gone['id']}")


@webhooks.command()
@click.argument("name")
@click.option(
    "--overlap-hours",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    help="For so long the old one signs, too.",
)
@json_option
@click.pass_context
def rotate(ctx: click.Context, *, name: str, overlap_hours: float, as_json: bool) -> None:
    """Make a new secret and print it, this once."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        made = client.request("POST", f"/v1/webhooks/{name}/rotate", body={"overlap_s": overlap_hours * 3600})
    _secret(chosen, made)


@webhooks.command()
@click.argument("name")
@json_option
@click.pass_context
def enable(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """Use a webhook again that was disabled."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("POST", f"/v1/webhooks/{name}/enable", body={})
    chosen.output.done(found, f"{found['id']}: {found['status']}")


@webhooks.command()
@click.argument("name")
@json_option
@click.pass_context
def test(ctx: click.Context, *, name: str, as_json: bool) -> int:
    """Send a webhook.test event now, and wait for what becomes of its first attempt."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        made = client.request("POST", f"/v1/webhooks/{name}/test", body={})
        found = _attempted(client, name, made["id"])
    if chosen.output.as_json:
        chosen.output.json(found)
    elif found["status"] == "delivered":
        chosen.output.say(f"{name} answered {found['last_status']}")
    else:
        chosen.output.error("webhook", f"{name}: {found['last_error'] or 'not tried yet'}")
    return 0 if found["status"] == "delivered" else 1


@webhooks.command()
@click.argument("name")
@click.option("--status", type=click.Choice(["pending", "delivered", "failed"]))
@click.option("--limit", type=click.IntRange(1, 200), default=SHOWN, show_default=True)
@json_option
@click.pass_context
def deliveries(ctx: click.Context, *, name: str, status: str | None, limit: int, as_json: bool) -> None:
    """What a webhook was told, newest first."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        query = {"status": status, "limit": limit}
        found = client.request("GET", f"/v1/webhooks/{name}/deliveries", query=query)["data"]
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (
            one["id"],
            one["event_type"],
            one["object_id"],
            ago(one["happened_at"]),
            one["status"],
            str(one["attempts"]),
            str(one["last_status"] or one["last_error"] or "-"),
        )
        for one in found
    ]
    columns = ("DELIVERY", "EVENT", "OF", "WHEN", "STATUS", "ATTEMPTS", "ANSWER")
    below = ("OF", "ATTEMPTS", "ANSWER")
    chosen.output.table(columns, rows, empty="Nothing yet.", cut=("WHEN", "EVENT"), below=below)


@webhooks.command()
@click.argument("name")
@click.argument("delivery_id")
@json_option
@click.pass_context
def redeliver(ctx: click.Context, *, name: str, delivery_id: str, as_json: bool) -> int:
    """Tell it again, under the same id, with all attempts anew."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        client.request("POST", f"/v1/webhooks/{name}/deliveries/{delivery_id}/redeliver", body={})
        found = _attempted(client, name, delivery_id)
    chosen.output.done(found, f"{delivery_id}: {found['status']}")
    return 0 if found["status"] == "delivered" else 1


def _secret(chosen: Any, made: dict[str, Any]) -> None:
    if chosen.output.as_json:
        chosen.output.json(made)
        return
    chosen.output.say(made["secret"])
    chosen.output.progress(f"{made['id']}: keep it now, it is not shown again")


def _attempted(client: Client, name: str, delivery_id: str) -> dict[str, Any]:
    """Once it was tried, or as it stands after TEST_S_MAX."""
    deadline = time.monotonic() + TEST_S_MAX
    while True:
        listed = client.request("GET", f"/v1/webhooks/{name}/deliveries", query={"limit": 200})["data"]
        found: dict[str, Any] = next(one for one in listed if one["id"] == delivery_id)
        if found["status"] != "pending" or (found["attempts"] and found["last_attempt_at"]):
            return found
        if time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)
