"""The demo with a crash: SIGKILL to the server in the middle of a tool run, a new server, and the log as the witness."""

import os
import signal
import subprocess

import click
from rich.markup import escape

from freehold.cli._connection import Settings, own_server, start_server, stop_server, wait_until_ready
from freehold.cli._demo_evidence import Judgement, ToolStep, judge
from freehold.cli._demo_place import Place
from freehold.cli._demo_run import ask, close, command, prepare, result
from freehold.cli._transcript import Transcript
from freehold.cli.chat import events_behind, follow
from freehold.client.client import Client


def crash(chosen: Settings, place: Place, *, model: str | None, fresh: bool) -> int:
    """Exit code 0 only where the log proves that nothing was lost and nothing finished was done twice."""
    output = chosen.output
    transcript = Transcript(output)
    process = start_server(chosen.data_folder)
    try:
        started = wait_until_ready(process, chosen.data_folder)
        with Client(started.url, started.api_key) as client:
            prepare(client, chosen, place, fresh=fresh)
            session_id, cursor = ask(client, chosen, model)
            cursor, running = _until_a_function_runs(client, session_id, cursor, transcript)
        _kill(process)
    finally:
        stop_server(process)
    output.say(
        f"\n[bold red]SIGKILL[/bold red] to the server (process {process.pid}), in the middle of {escape(running)}"
    )
    with own_server(chosen.data_folder) as (again, started), Client(started.url, started.api_key) as client:
        output.say(
            f"[bold]Started again[/bold] (process {again.pid}); following the session behind event {cursor}\n"
        )
        ended = follow(client, session_id, transcript, after=cursor)
        path = f"/v1/sessions/{session_id}/events"
        events = list(client.pages(path, query={"include": "freehold", "limit": 1000}))
    judgement = judge(events)
    _show(chosen, session_id, judgement)
    close(chosen, session_id, ended, transcript)
    if output.as_json:
        output.json(result(session_id, ended, transcript) | {"crash": judgement, "proved": judgement.holds})
    return 0 if judgement.holds else 1


def _until_a_function_runs(
    client: Client, session_id: str, cursor: str, transcript: Transcript
) -> tuple[str, str]:
    """The cursor of a function tool's start (they take longest), and the tool's name."""
    tools = client.request("GET", "/v1/resources", query={"kind": "tool"})["data"]
    functions = {one["name"] for one in tools if one["resource"]["type"] == "function"}
    for event in events_behind(client, session_id, cursor):
        ended = transcript.feed(event)
        if ended is not None:
            raise click.ClickException(
                f"the turn ended ({ended.outcome}) without a run of {', '.join(sorted(functions))}: nothing was killed"
            )
        cursor = event.cursor or cursor
        if event.type == "freehold.tool_started" and event.body["tool"] in functions:
            return cursor, event.body["tool"]
    raise AssertionError("a stream of events ends only with its caller")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _show(chosen: Settings, session_id: str, judgement: Judgement) -> None:
    output = chosen.output
    shown = " ".join([*command(chosen), "sessions", "show", session_id, "--log"])
    output.say("\n[bold]What the log says[/bold]")
    output.command(f"  {shown}\n")
    output.say(f"  {judgement.answers_before} answers of the model before the kill: not asked again")
    rows = [_row(step) for step in judgement.steps]
    output.table(
        ("  TOOL RUN", "STARTED AT", "RESULT AT", "WHEN KILLED", "AFTER"), rows, empty="No tool ran."
    )
    for check in judgement.checks:
        mark = "[green]✓[/green]" if check.holds else "[red]✗[/red]"
        output.say(f"  {mark} {escape(check.says)}")


def _row(step: ToolStep) -> tuple[str, ...]:
    started, results = ", ".join(step.started_at), ", ".join(step.results_at)
    if step.finished_before:
        when, after = "finished", "not run again"
    elif step.running:
        when, after = "running", f"attempt {len(step.started_at)}, key {_key(step)}"
    else:
        when, after = "not begun", "run"
    return (f"  {step.name}", started, results, when, after)


def _key(step: ToolStep) -> str:
    return "unchanged" if len(set(step.keys)) == 1 else "CHANGED"
