"""`freehold routes`: why a route takes one model and leaves another."""

import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Commands
from freehold.cli._output import seconds

DEFAULT_WIRE: Final = "openai_chat"
QUESTION: Final = "Hello"


@click.group(cls=Commands)
def routes() -> None:
    """Explain what a route would do. Declare routes by a template: freehold apply; list them: freehold get routes."""


@routes.command()
@click.argument("name")
@click.option("--request", "request", metavar="FILE", help="A request's body in JSON, as a client sends it; - reads standard input. [default: a short question]")  # fmt: skip
@click.option("--wire", default=DEFAULT_WIRE, show_default=True, help="The format of the request: openai_chat, anthropic_messages ...")  # fmt: skip
@click.option("--draw", type=click.FloatRange(0, 1, max_open=True), help="Chance, for routes that go by it. [default: random]")  # fmt: skip
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL",
    help="As if it were labelled so, e.g. eu; repeatable.",
)
@click.option(
    "--session", metavar="ID", help="As if it were of this session: for sticky routes and experiments."
)
@click.option("--user", metavar="NAME", help="As if it were for this user.")
@json_option
@click.pass_context
def explain(
    ctx: click.Context, *, name: str, request: str | None, wire: str, draw: float | None, labels: tuple[str, ...],
    session: str | None, user: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Print which models the route NAME would ask, in order, and why each is taken or left. No model is asked."""
    chosen = settings(ctx)
    body = _body(request, name=name, wire=wire)
    with connected(chosen) as client:
        path = f"/v1/routes/{name}/explain"
        query = {"wire": wire, "draw": draw}
        told = client.request(
            "POST", path, content=body, query=query, headers=_headers(labels, session, user)
        )
    if chosen.output.as_json:
        chosen.output.json(told)
        return
    rows = [
        (str(one["place"] or "-"), one["model"], one["why"], _price(one), _latency(one))
        for one in told["models"]
    ]
    by = "" if told["by"] == told["route"] else f", by {told['by']}"
    arm = "" if told["arm"] is None else f", arm {told['arm']}{by}"
    chosen.output.say(
        f"{told['route']}{arm} ({told['strategy']}), about {told['input_tokens']} tokens of input"
    )
    chosen.output.table(("ASKED", "MODEL", "WHY", "EXPECTED", "LATELY"), rows, empty="No models.")


def _headers(labels: tuple[str, ...], session: str | None, user: str | None) -> dict[str, bytes]:
    """As a client sends them."""
    given = {"x-freehold-labels": ",".join(labels), "x-freehold-session": session, "x-freehold-user": user}
    return {name: value.encode() for name, value in given.items() if value}


def _body(request: str | None, *, name: str, wire: str) -> bytes:
    if request is None:
        if wire != DEFAULT_WIRE:
            raise click.UsageError(f"--wire {wire} needs a --request in that format")
        return msgspec.json.encode({"model": name, "messages": [{"role": "user", "content": QUESTION}]})
    if request == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(request).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{request}: {error.strerror}", param_hint="--request") from error


def _price(one: dict[str, Any]) -> str:
    return "" if one["price"] is None else f"{one['price']} {one['currency']}"


def _latency(one: dict[str, Any]) -> str:
    told = []
    if one["first_token_p50_s"] is not None:
        p50, p95 = one["first_token_p50_s"] * 1000, one["first_token_p95_s"] * 1000
        told.append(f"first token {seconds(p50)} (p95 {seconds(p95)})")
    if one["whole_answer_p50_s"] is not None:
        told.append(f"whole answer {seconds(one['whole_answer_p50_s'] * 1000)}")
    if one["tokens_per_s"] is not None:
        told.append(f"{one['tokens_per_s']:.0f} tokens/s (p95 {one['tokens_per_s_p95']:.0f})")
    return ", ".join(told)
