"""`freehold models`: what can be called here, and why the rest can't; taking models out of use and back."""

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Commands


@click.group(cls=Commands, invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="Also providers that can't be used yet, and why.")
@json_option
@click.pass_context
def models(ctx: click.Context, *, everything: bool, as_json: bool) -> None:
    """List the models that can be called here."""
    if ctx.invoked_subcommand is not None:
        return
    chosen = settings(ctx)
    with connected(chosen) as client:
        found = client.request("GET", "/v1/models")["data"]
        providers = client.request("GET", "/v1/providers")["data"]
    if chosen.output.as_json:
        chosen.output.json({"models": found, "providers": providers})
        return
    rows = [(one["id"], one.get("owned_by", "")) for one in found]
    chosen.output.table(("MODEL", "PROVIDER"), rows, empty="No model can be called yet.")
    if everything:
        chosen.output.say("")
        states = [(one["name"], "ready" if one["usable"] else "not ready", one["why"]) for one in providers]
        chosen.output.table(("PROVIDER", "STATE", "WHY"), states, empty="No providers.")


@models.command()
@click.argument("which", metavar="PROVIDER[/MODEL]")
@click.option("--reason", default="", help="For whoever meets it.")
@json_option
@click.pass_context
def drain(ctx: click.Context, *, which: str, reason: str, as_json: bool) -> None:
    """Let models take no new calls, in every process. What is under way ends as it would."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        drained = client.request("POST", "/v1/drains", body={"models": which, "reason": reason})
    if chosen.output.as_json:
        chosen.output.json(drained)
        return
    chosen.output.say(f"{drained['models']} takes no new calls; freehold models undrain {which} ends that")


@models.command()
@click.argument("which", metavar="PROVIDER[/MODEL]")
@json_option
@click.pass_context
def undrain(ctx: click.Context, *, which: str, as_json: bool) -> None:
    """Let drained models take calls again."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        ended = client.request("DELETE", f"/v1/drains/{which}")
    if chosen.output.as_json:
        chosen.output.json(ended)
        return
    chosen.output.say(f"{ended['models']} takes calls again")
