"""`freehold models`: what can be called here, and why the rest can't."""

import click

from freehold.cli._connection import connected, json_option, settings


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also providers that can't be used yet, and why.")
@json_option
@click.pass_context
def models(ctx: click.Context, *, everything: bool, as_json: bool) -> None:
    """List the models that can be called here."""
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
