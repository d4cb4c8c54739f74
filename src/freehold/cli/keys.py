"""`freehold keys`: API keys. A key is shown once, when it is made; kept is only a digest."""

from typing import Any

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Commands
from freehold.cli._output import ago


@click.group(cls=Commands)
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.argument("name")
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="ACTION[=RESOURCE]",
    help="Allow only this, e.g. model:Call=model/openai/*; repeatable. Default: everything.",
)
@click.option("--expires-in-days", type=click.FloatRange(min=0, min_open=True), help="Default: never.")
@click.option("--team", metavar="NAME", help="Whose limits and budgets its calls count against.")
@click.option("--user", metavar="NAME", help="Who uses it, where it is one person's.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL",
    help="Its requests go nowhere else, e.g. eu; repeatable.",
)
@json_option
@click.pass_context
def create(
    ctx: click.Context,
    *,
    name: str,
    allowed: tuple[str, ...],
    expires_in_days: float | None,
    team: str | None,
    user: str | None,
    labels: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a key called NAME and print it, this once."""
    chosen = settings(ctx)
    body: dict[str, Any] = {"name": name}
    body |= {field: given for field, given in (("team", team), ("user", user)) if given is not None}
    if labels:
        body["labels"] = labels
    if expires_in_days is not None:
        body["expires_in_s"] = int(expires_in_days * 86_400)
    if allowed:
        pairs = [one.partition("=") for one in allowed]
        body["policy"] = {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": action, "Resource": resource or "*"}
                for action, _, resource in pairs
            ],
        }
    with connected(chosen) as client:
        made = client.request("POST", "/v1/keys", body=body)
    if chosen.output.as_json:
        chosen.output.json(made)
        return
    chosen.output.say(made["key"])
    chosen.output.progress(f"{made['id']}: keep it now, it is not shown again")


@keys.command("list")
@json_option
@click.pass_context
def list_keys(ctx: click.Context, *, as_json: bool) -> None:
    """Keys, without their secrets."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("GET", "/v1/keys")["data"]
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (
            one["id"],
            one["name"],
            one["team"] or "-",
            one["status"],
            ago(one["created_at"]),
            one["expires_at"] or "never",
        )
        for one in found
    ]
    chosen.output.table(("KEY", "NAME", "TEAM", "STATUS", "MADE", "EXPIRES"), rows, empty="No keys.")


@keys.command()
@click.argument("key_id")
@json_option
@click.pass_context
def revoke(ctx: click.Context, *, key_id: str, as_json: bool) -> None:
    """Revoke a key: it stops working within a second, everywhere, for good."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        revoked = client.request("DELETE", f"/v1/keys/{key_id}")
    chosen.output.done(revoked, f"revoked {revoked['id']} ({revoked['name']})")
