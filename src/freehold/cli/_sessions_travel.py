"""`freehold sessions fork|replay|diff`: what a session could have been, and whether it is what it says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich import box
from rich.markup import escape
from rich.table import Table

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Command
from freehold.cli._output import Output, seconds, short
from freehold.client.client import Client
from freehold.core import pricing
from freehold.core.messages import Usage
from freehold.runtime.compare import Comparison, Done, Facts, compared
from freehold.runtime.kinds import check_agents
from freehold.runtime.recording import Recording, read_lines
from freehold.runtime.replay import Replayed, replayed

EXIT_DIVERGED: Final = 1
CELL_CHARS: Final = 300


@click.command(cls=Command)
@click.argument("session_id")
@click.option(
    "--at",
    metavar="EVENT",
    help="The last event that both have: its number, cursor or id. Default: the last there is.",
)
@click.option("--model", metavar="MODEL", help="Go on with this model instead.")
@click.option("--title", help="Default: the origin's.")
@click.option(
    "--edit",
    metavar="TEXT",
    help="Say this instead of the user's message at --at (default: the last one), and go on from there.",
)
@click.option(
    "--edit-result", metavar="TEXT", help="The same for a tool call's result: as if the tool had given this."
)
@json_option
@click.pass_context
def fork(
    ctx: click.Context,
    *,
    session_id: str,
    at: str | None,
    model: str | None,
    title: str | None,
    edit: str | None,
    edit_result: str | None,
    as_json: bool,
) -> None:
    """Begin a session that shares another's events up to a place, and goes its own way from there."""
    chosen = settings(ctx)
    if edit is not None and edit_result is not None:
        raise click.UsageError("either --edit or --edit-result: one event can be replaced")
    body: dict[str, Any] = {"at": at, "model": model, "title": title}
    if edit is not None or edit_result is not None:
        of = "message" if edit is not None else "result"
        body["edit"] = {"content": edit if edit is not None else edit_result, "of": of}
    with connected(chosen) as client:
        made = client.request("POST", f"/v1/sessions/{session_id}/fork", body=body)
    if chosen.output.as_json:
        chosen.output.json(made)
        return
    ours = made["freehold"]
    chosen.output.say(
        f"[bold]{made['id']}[/bold]  shares {ours['origin']['seq']} events with {session_id}, and is {ours['status']}"
    )
    if ours["status"] == "running":
        chosen.output.command(f"freehold sessions tail {made['id']} --after {ours['origin']['seq']}")


@click.command(cls=Command)
@click.argument("session_id", required=False)
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Replay an export instead; needs no server.",
)
@click.option(
    "--model", metavar="MODEL", help="Ask this model at every step, with the recorded results. This costs."
)
@click.option(
    "--continue",
    "past_divergence",
    is_flag=True,
    help="With --model: go on where it does something else, as far as recorded results go.",
)
@json_option
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    session_id: str | None,
    path: Path | None,
    model: str | None,
    past_divergence: bool,
    as_json: bool,
) -> int:
    """Decide a session again from what was recorded, offline; or with another model. Exit code 1: it came out otherwise."""
    chosen = settings(ctx)
    if (session_id is None) == (path is None):
        raise click.UsageError("name a session, or an export with --file")
    if model is None and past_divergence:
        raise click.UsageError("--continue goes with --model: offline there is nothing to go past")
    if path is not None:
        if model is not None:
            raise click.UsageError("--model needs the session on its server, not a file")
        recording = _of_agents(_read(path), "replay")
        return _tell_replayed(
            chosen.output, replayed(recording.session_id, recording.events, recording.equipments)
        )
    with connected(chosen) as client:
        if model is not None:
            return _reask(chosen.output, client, f"{session_id}", model, past_divergence=past_divergence)
        found = client.request("POST", f"/v1/sessions/{session_id}/replay", body={})
    return _tell_replayed(chosen.output, msgspec.convert(found["replayed"], Replayed))


@click.command(cls=Command)
@click.argument("first")
@click.argument("second")
@json_option
@click.pass_context
def diff(ctx: click.Context, *, first: str, second: str, as_json: bool) -> None:
    """Compare two sessions (or exports of them): where they part, and what each did, at what cost and in what time."""
    chosen = settings(ctx)
    if all(Path(one).is_file() for one in (first, second)):
        one, other = _read(Path(first)), _read(Path(second))
    else:
        with connected(chosen) as client:
            one, other = _fetched(client, first), _fetched(client, second)
    found = compared(_of_agents(one, "compare"), _of_agents(other, "compare"))
    if chosen.output.as_json:
        chosen.output.json(found)
        return
    _tell_comparison(chosen.output, found)


def _read(path: Path) -> Recording:
    try:
        with path.open("rb") as lines:
            return read_lines(lines)
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint="--file") from error


def _of_agents(found: Recording, doing: str) -> Recording:
    check_agents(found.session_id, doing)
    return found


def _fetched(client: Client, named: str) -> Recording:
    if Path(named).is_file():
        return _read(Path(named))
    return read_lines(client.lines("GET", f"/v1/sessions/{named}/export"))


def _tell_replayed(output: Output, found: Replayed) -> int:
    if output.as_json:
        output.json({"same": found.divergence is None, "replayed": found})
    elif found.divergence is None:
        output.say(
            f"[green]the same[/green]  {found.events} events: {found.decisions} decisions and {found.requests} requests came out "
            f"as recorded; {found.taken} answers and results were taken from the log"
        )
        if found.unchecked:
            output.say(
                f"[dim]{found.unchecked} events could not be checked: recorded before what models are asked was kept[/dim]"
            )
    else:
        gone = found.divergence
        output.say(f"[red]not the same[/red]  event {gone.seq}: {escape(gone.what)}")
        output.say(f"  recorded  {escape(short(gone.recorded, width=CELL_CHARS))}")
        output.say(f"  now       {escape(short(gone.expected, width=CELL_CHARS))}")
    return EXIT_DIVERGED if found.divergence is not None else 0


def _reask(output: Output, client: Client, session_id: str, model: str, *, past_divergence: bool) -> int:
    body = {"model": model, "past_divergence": past_divergence}
    lines = client.lines("POST", f"/v1/sessions/{session_id}/replay", body=body)
    steps: list[dict[str, Any]] = []
    end: dict[str, Any] = {}
    for told in map(msgspec.json.decode, lines):
        if told["type"] == "end":
            end = told
            continue
        steps.append(told)
        if not output.as_json:
            output.progress(f"step {len(steps)}: {told.get('difference') or 'the same calls'}")
    if output.as_json:
        output.json({"steps": steps, "end": end})
    else:
        output.out.print(_steps_table(steps))
        _tell_end(output, steps, end)
    return 0 if end.get("why") == "completed" and end.get("same") == end.get("steps") else EXIT_DIVERGED


def _steps_table(steps: list[dict[str, Any]]) -> Table:
    table = _table("EVENT", "RECORDED", "COST", "TIME", "ASKED NOW", "COST", "TIME")
    for step in steps:
        new = step.get("difference") is not None or step.get("recorded") is None
        style = "yellow" if new else None
        recorded = step.get("recorded")
        table.add_row(
            str(step.get("seq") or "+"), *_side_cells(recorded), *_side_cells(step["asked"]), style=style
        )
    return table


def _side_cells(side: dict[str, Any] | None) -> tuple[str, str, str]:
    if side is None:
        return "", "", ""
    done = " ".join(f"{name}({short(arguments, width=60)})" for name, arguments in side["calls"])
    said = done or short(side["text"], width=100)
    return escape(said), side["cost"]["shown"], seconds(side["duration_ms"])


def _tell_end(output: Output, steps: list[dict[str, Any]], end: dict[str, Any]) -> None:
    if not end:
        output.say("[red]the replay broke off[/red]")
        return
    models = {step["asked"]["model"] for step in steps}
    output.say(
        f"\n{end['same']} of {end['steps']} steps made the same calls with {escape(', '.join(sorted(models)) or 'it')}"
    )
    output.say(
        f"[dim]recorded {end['recorded_cost']['shown']} in {seconds(end['recorded_duration_ms'])} · "
        f"now {end['asked_cost']['shown']} in {seconds(end['asked_duration_ms'])}[/dim]"
    )
    if end["why"] != "completed":
        output.say(f"[yellow]ended: {escape(end['message'])}[/yellow]")


def _tell_comparison(output: Output, found: Comparison) -> None:
    if found.parted_seq is None:
        output.say(f"[green]the same[/green]  {found.same_events} events")
    else:
        output.say(f"{found.same_events} events are the same; they part at event {found.parted_seq}:")
        for name, one in zip("AB", found.parted, strict=True):
            output.say(f"  [bold]{name}[/bold]  {escape(short(one, width=CELL_CHARS))}")
    facts = _table("", "A", "B")
    for name, left, right in _fact_rows(found.first, found.second):
        facts.add_row(name, escape(left), escape(right), style=None if left == right else "bold")
    output.say("")
    output.out.print(facts)
    if found.done:
        done = _table("A", "B")
        for left_done, right_done in found.done:
            done.add_row(_done_cell(left_done), _done_cell(right_done))
        output.say("")
        output.out.print(done)


def _fact_rows(first: Facts, second: Facts) -> Iterator[tuple[str, str, str]]:
    for name, of in _FACTS:
        yield name, of(first), of(second)


def _tokens(usage: Usage) -> str:
    return f"{usage.input_tokens:,} + {usage.output_tokens:,}"


_FACTS: Final[tuple[tuple[str, Any], ...]] = (
    ("session", lambda one: one.session_id),
    ("agent", lambda one: one.agent),
    ("models", lambda one: ", ".join(one.models) or "none"),
    ("ended", lambda one: one.outcome or "not yet"),
    ("turns", lambda one: str(one.turns)),
    ("model calls", lambda one: str(one.model_calls)),
    ("tool calls", lambda one: f"{one.tool_calls}" + (f", {one.tools_failed} failed" if one.tools_failed else "")),
    ("tokens in + out", lambda one: _tokens(one.usage)),
    ("cost", lambda one: pricing.show(one.cost_pico)),
    ("time of models", lambda one: seconds(one.model_ms)),
    ("time of tools", lambda one: seconds(one.tools_ms)),
    ("waited", lambda one: seconds(one.waited_ms)),
)  # fmt: skip


def _done_cell(done: Done | None) -> str:
    if done is None:
        return ""
    given = short(done.given, width=120)
    head = (
        f"[bold]{escape(done.kind)}[/bold] {escape(given)}" if given else f"[bold]{escape(done.kind)}[/bold]"
    )
    spent = f" [dim]{seconds(done.duration_ms)}[/dim]" if done.duration_ms else ""
    return f"{head}{spent}\n{escape(short(done.result, width=CELL_CHARS))}"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        number = column in ("COST", "TIME", "EVENT")
        table.add_column(column, overflow="fold", no_wrap=number, justify="right" if number else "left")
    return table
