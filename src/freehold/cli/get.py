"""`freehold get`, `freehold describe` and `freehold archive`: declared resources."""

from typing import Any, Final

import click
import yaml

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Command
from freehold.cli._output import ago, counted, short
from freehold.core.allowances import SIZES

ABOUT_CHARS_MAX: Final = 100


@click.command(cls=Command)
@click.argument("kind", required=False)
@click.option("--archived", is_flag=True, help="Also those that were taken out of use.")
@json_option
@click.pass_context
def get(ctx: click.Context, *, kind: str | None, archived: bool, as_json: bool) -> None:
    """List resources: all but deployments, or those of one KIND (agents, tools, rules, providers, routes, drains, price_books ...)."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        query = {"kind": kind, "include_archived": "true" if archived else None}
        found = client.request("GET", "/v1/resources", query=query)["data"]
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    rows = [
        (
            one["kind"],
            one["name"],
            str(one["version"]),
            short(_about(one["resource"]), width=ABOUT_CHARS_MAX),
            f"{ago(one['updated_at'])}{', archived' if one['archived'] else ''}",
        )
        for one in found
    ]
    chosen.output.table(
        ("KIND", "NAME", "VERSION", "ABOUT", "CHANGED"),
        rows,
        empty="Nothing is declared yet: freehold apply FILE",
        cut=("ABOUT",),
    )


@click.command(cls=Command)
@click.argument("kind")
@click.argument("name")
@click.option("--version", type=int, help="Not the newest, but this one.")
@click.option("--versions", is_flag=True, help="List every version instead.")
@json_option
@click.pass_context
def describe(
    ctx: click.Context, *, kind: str, name: str, version: int | None, versions: bool, as_json: bool
) -> None:
    """Show one resource whole, as a template that would declare it."""
    chosen = settings(ctx)
    output = chosen.output
    with connected(chosen) as client:
        path = f"/v1/resources/{kind}/{name}"
        if versions:
            found = client.request("GET", f"{path}/versions")["data"]
            if output.as_json:
                output.json(found)
                return
            rows = [(str(one["version"]), one["created_by"], one["created_at"]) for one in found]
            output.table(("VERSION", "BY", "AT"), rows, empty="No versions.")
            return
        one = client.request("GET", path, query={"version": version})
    if output.as_json:
        output.json(one)
        return
    output.say(
        f"[dim]# {one['kind']} {one['name']}, version {one['version']}, by {one['created_by']} at {one['created_at']}[/dim]"
    )
    output.out.print(
        yaml.safe_dump(one["resource"], sort_keys=False, allow_unicode=True, width=110), markup=False, end=""
    )


@click.command(cls=Command)
@click.argument("kind")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@click.pass_context
def archive(ctx: click.Context, *, kind: str, names: tuple[str, ...], as_json: bool) -> None:
    """Take resources of a KIND out of use: a route, a limit, a budget, a price book. Their versions are kept.

    \b
      freehold archive budget research
    """
    chosen = settings(ctx)
    with connected(chosen) as client:
        archived = [client.request("DELETE", f"/v1/resources/{kind}/{name}") for name in names]
    if chosen.output.as_json:
        chosen.output.json(archived)
        return
    for one in archived:
        chosen.output.say(f"archived {one['kind']} {one['name']}; applying it puts it to use again")


def _about(resource: dict[str, Any]) -> str:
    match resource["kind"]:
        case "agent":
            return f"{resource.get('model', 'auto')}; tools: {', '.join(resource.get('tools', ())) or 'none'}"
        case "tool" | "provider":
            return (
                f"{resource['type']}{': ' + resource['description'] if resource.get('description') else ''}"
            )
        case "price_book":
            return f"{counted(len(resource['prices']), 'price')} in {resource.get('currency', 'USD')}"
        case "capacity":
            return f"{resource['models']}: {resource['tokens_per_minute']} tokens/min"
        case "budget":
            return f"${resource['amount_usd']} a {resource.get('period', 'month')}, {resource.get('scope', 'organisation')}"
        case "limit":
            sizes = {name: resource[name] for name in SIZES if name in resource}
            told = ", ".join(f"{size} {name}" for name, size in sizes.items())
            return f"{resource.get('scope', 'organisation')}: {told}"
        case "route":
            models = [one if isinstance(one, str) else one["model"] for one in resource["models"]]
            return f"{resource.get('strategy', 'ordered')}: {', '.join(models)}"
        case "webhook":
            return f"{', '.join(resource['events'])} to {resource['url']}"
        case "environment":
            network = resource.get("network", {})
            hosts = ", ".join(network.get("allowed_hosts", ())) or "no host"
            return f"network: {hosts if network.get('type') == 'limited' else 'unrestricted'}"
        case "retention":
            days = (
                "held"
                if resource.get("hold")
                else f"{resource['days']:g} days"
                if "days" in resource
                else "for ever"
            )
            return f"{', '.join(resource.get('agents', ())) or 'all agents'}: {days}"
        case "deployment":
            schedule = resource.get("schedule", {})
            return f"{resource['agent']}: {schedule.get('expression') or schedule.get('at') or 'by hand'}"
        case "drain":
            return f"{resource['models']}{': ' + resource['reason'] if resource.get('reason') else ''}"
        case _:
            return counted(len(resource.get("rules", ())), "rule")
