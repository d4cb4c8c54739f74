"""`freehold chat AGENT [MESSAGE]`: one question, or a conversation; always in a session that can be taken up again."""

import secrets
import sys
from collections.abc import Iterator
from typing import Any

import click
from rich.markup import escape

from freehold.cli._connection import Settings, connected, json_option, settings
from freehold.cli._group import Command
from freehold.cli._transcript import Ended, Transcript
from freehold.client.client import Client, StreamedEvent

RULES_NOTE = (
    "No language model was asked: the answer was composed by declared rules. "
    "Set OPENAI_API_KEY or ANTHROPIC_API_KEY, start a local model server, or give --model provider/name."
)


@click.command(cls=Command)
@click.argument("agent")
@click.argument("message", required=False)
@click.option("--session", "session_id", metavar="ID", help="Go on in a session instead of beginning one.")
@click.option("--continue", "go_on", is_flag=True, help="Go on in the newest session with this agent.")
@click.option(
    "--model", metavar="MODEL", help="provider/name, instead of the agent's own (new sessions only)."
)
@click.option("--title", default="", help="Title of a new session.")
@click.option(
    "--when-busy",
    type=click.Choice(["queue", "interrupt", "reject"]),
    help="Where a turn runs in the session: wait for it, break it off, or leave it. [default: as the agent says]",
)
@json_option
@click.pass_context
def chat(
    ctx: click.Context,
    *,
    agent: str,
    message: str | None,
    session_id: str | None,
    go_on: bool,
    model: str | None,
    title: str,
    when_busy: str | None,
    as_json: bool,
) -> int:
    """Talk with AGENT.

    With MESSAGE, ask it and print the answer; without, read messages from the terminal (or one from a pipe).

    \b
      freehold chat retail-inventory "What is on its way to Rotterdam?"
      freehold chat retail-inventory --continue "And to Hamburg?"
    """
    chosen = settings(ctx)
    if session_id and go_on:
        raise click.UsageError("give --session or --continue, not both")
    if model and (session_id or go_on):
        raise click.UsageError("--model is chosen when a session begins; leave out --session and --continue")
    with connected(chosen) as client:
        if go_on:
            session_id = newest_session(client, agent)
        if session_id is None:
            session_id = begin(client, agent, model=model, title=title)
        if message is not None:
            return ask(client, chosen, session_id, message, when_busy=when_busy)
        if not sys.stdin.isatty():
            return ask(client, chosen, session_id, sys.stdin.read(), when_busy=when_busy)
        return _converse(client, chosen, session_id, when_busy=when_busy)


def begin(client: Client, agent: str, *, model: str | None = None, title: str = "") -> str:
    body: dict[str, Any] = {"agent": agent, "title": title}
    if model:
        body["freehold"] = {"model": model}
    created: str = client.request("POST", "/v1/sessions", body=body, idempotency_key=secrets.token_hex(16))[
        "id"
    ]
    return created


def newest_session(client: Client, agent: str) -> str:
    for session in client.pages("/v1/sessions", query={"agent_id": agent, "limit": 1}, limit=1):
        newest: str = session["id"]
        return newest
    raise click.UsageError(f"there is no session with {agent} yet; leave out --continue")


def ask(
    client: Client, chosen: Settings, session_id: str, message: str, *, when_busy: str | None = None
) -> int:
    """Sends and shows until the turn ends. Returns an exit code: 0 only when the turn was completed."""
    after = send(client, session_id, message, when_busy=when_busy)
    transcript = Transcript(chosen.output)
    ended = follow(client, session_id, transcript, after=after, json_lines=chosen.output.as_json)
    report(chosen, session_id, ended, transcript)
    return 0 if ended.outcome == "completed" else 1


def send(client: Client, session_id: str, message: str, *, when_busy: str | None = None) -> str:
    """Returns the cursor of what was said: the answer's events come behind it."""
    event = {"type": "user.message", "content": [{"type": "text", "text": message}]}
    body = {"events": [event], "freehold": {"when_busy": when_busy}}
    sent = client.request(
        "POST", f"/v1/sessions/{session_id}/events", body=body, idempotency_key=secrets.token_hex(16)
    )
    cursor: str = sent["data"][0]["freehold"]["cursor"]
    return cursor


def events_behind(client: Client, session_id: str, after: str) -> Iterator[StreamedEvent]:
    """With previews of the answer, and without end."""
    query = {"event_deltas[]": ["agent.message"], "include": "freehold"}
    return client.stream(f"/v1/sessions/{session_id}/events/stream", query=query, after=after)


def follow(
    client: Client, session_id: str, transcript: Transcript, *, after: str, json_lines: bool = False
) -> Ended:
    """Shows what comes behind `after` until the turn ends. Ctrl-C leaves; the turn goes on where the server does.

    `json_lines` prints every recorded event as one line of JSON.
    """
    for event in events_behind(client, session_id, after):
        if json_lines and event.cursor is not None:
            transcript.output.json_line(event.body)
        ended = transcript.feed(event)
        if ended is not None:
            return ended
    raise AssertionError("a stream of events ends only with its caller")


def report(chosen: Settings, session_id: str, ended: Ended, transcript: Transcript) -> None:
    if chosen.output.as_json:
        return
    chosen.output.say(f"\n[dim]{transcript.summary()} · {session_id}[/dim]")
    if transcript.asked_rules:
        chosen.output.say(f"[yellow]{RULES_NOTE}[/yellow]")
    if ended.outcome == "waits":
        chosen.output.say(f"[yellow]◷ waits for {escape(ended.message)}[/yellow]; how it goes on:")
        chosen.output.command(f"freehold sessions show {session_id}")
    elif ended.outcome != "completed":
        chosen.output.error(
            ended.outcome, f"the turn ended: {ended.outcome.replace('_', ' ')}. {ended.message}".strip()
        )


def _converse(client: Client, chosen: Settings, session_id: str, *, when_busy: str | None) -> int:
    chosen.output.say(f"[dim]{session_id} · empty line or Ctrl-D ends; the session stays[/dim]")
    code = 0
    while True:
        try:
            message = click.prompt(
                click.style("›", bold=True), prompt_suffix=" ", default="", show_default=False
            )
        except click.exceptions.Abort:
            return code
        if not message.strip():
            return code
        code = ask(client, chosen, session_id, message, when_busy=when_busy)
