"""The demo: one question to the agent, and what is said around it. The crash is `_demo_crash.py`."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from freehold.cli._connection import Settings
from freehold.cli._demo_data import apply_template, fill
from freehold.cli._demo_place import Place, remembered_port, service_url
from freehold.cli._transcript import Ended, Transcript
from freehold.cli.chat import begin, send
from freehold.client.client import Client
from freehold.config import default_data_folder

AGENT: Final = "retail-inventory"
QUESTION: Final = "Why is SKU-4482 out of stock at the Shanghai distribution center?"
NEXT: Final = (
    ("--continue", "And when will it be back?"),
    ("", "What is on its way to Rotterdam?"),
)
HOW_TO_ASK_A_MODEL: Final = (
    "To ask one: set OPENAI_API_KEY or ANTHROPIC_API_KEY, start a local server (Ollama, vLLM, llama.cpp, LM Studio), "
    "or give --model provider/name."
)


def prepare(client: Client, chosen: Settings, place: Place, *, fresh: bool) -> None:
    """Data and template, where they are not there yet."""
    fill(client, place, chosen.output.progress, fresh=fresh)
    port = remembered_port(place) or 0
    for change in apply_template(client, place, {"SUPPLY_CHAIN_URL": service_url(port)}):
        chosen.output.progress(f"  {change['action']} {change['kind']} {change['name']}")


def ask(client: Client, chosen: Settings, model: str | None) -> tuple[str, str]:
    """Says who will answer, and asks in a new session. Returns the session's id and the cursor behind the question."""
    output = chosen.output
    agent = client.request("GET", f"/v1/agents/{AGENT}")
    query = {"model": model or agent["model"]["id"], "rules": agent["freehold"]["rules"]}
    answering = client.request("GET", "/v1/resolved-model", query=query)
    session_id = begin(client, AGENT, model=model, title="Demo: SKU-4482 in Shanghai")
    output.say(
        f"\n[bold]Agent[/bold]  {AGENT} [dim](version {agent['version']})[/dim], "
        f"with {', '.join(agent['freehold']['tools'])}"
    )
    output.say(f"[bold]Model[/bold]  {escape(answering['model'])}{_told(answering)}")
    output.say(f"\n[bold]› {QUESTION}[/bold]")
    return session_id, send(client, session_id, QUESTION)


def _told(answering: dict[str, Any]) -> str:
    if answering["is_language_model"]:
        return ""
    return (
        f"\n[yellow]       These are declared rules: no language model is asked.[/yellow]\n"
        f"[dim]       {HOW_TO_ASK_A_MODEL}[/dim]"
    )


def close(chosen: Settings, session_id: str, ended: Ended, transcript: Transcript) -> None:
    """The sum, and where to go from here."""
    output = chosen.output
    output.say(f"\n[dim]{transcript.summary()} · {session_id}[/dim]")
    if ended.outcome != "completed":
        output.error(
            ended.outcome, f"the turn ended: {ended.outcome.replace('_', ' ')}. {ended.message}".strip()
        )
        return
    output.say("\n[bold]Go on[/bold], over the same data:")
    for option, question in NEXT:
        words = [*command(chosen), "chat", AGENT, *([option] if option else [])]
        output.command(f'  {shlex.join(words)} "{question}"')


def command(chosen: Settings) -> list[str]:
    """How the person who runs this calls `freehold` on the same data."""
    called = Path(sys.argv[0])
    found = shutil.which("freehold")
    known = (
        found is not None
        and called.name == "freehold"
        and (called.parent == Path() or Path(found).samefile(called))
    )
    here = Path.cwd()
    shown = called.relative_to(here) if called.is_absolute() and called.is_relative_to(here) else called
    words = ["freehold"] if known else [str(shown)]
    if chosen.data_folder != default_data_folder(os.environ):
        words += ["--data", str(chosen.data_folder)]
    return words


def result(session_id: str, ended: Ended, transcript: Transcript) -> dict[str, Any]:
    """For `--json`."""
    return {
        "session_id": session_id,
        "agent": AGENT,
        "question": QUESTION,
        "outcome": ended.outcome,
        "message": ended.message,
        "answer": transcript.answer,
        "language_model": not transcript.asked_rules,
        "steps": transcript.steps,
        "totals": transcript.totals,
    }
