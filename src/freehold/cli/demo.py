"""`freehold demo`: an agent answers a question over a company's data, with every step to be seen.

It lives in the data folder that every other command uses, so that `freehold chat retail-inventory` finds the same data.
What it adds there: settings in `freehold.d/retail-demo.toml`, files in `retail-demo/`, a database `retail`, a table
`inventory`, objects under `retail/`, and the resources of the template.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from freehold.cli import _demo_run as run
from freehold.cli._connection import Settings, json_option, own_server, running_server, settings
from freehold.cli._demo_crash import crash as run_and_crash
from freehold.cli._demo_data import stage
from freehold.cli._demo_place import choose_port, find_place, write_settings
from freehold.cli._group import Command
from freehold.cli._transcript import Transcript
from freehold.cli.chat import follow
from freehold.client.client import Client
from freehold.store.data_folder import data_folder


@click.command(cls=Command)
@click.option(
    "--model", metavar="MODEL", help="provider/name. Default: the best that is found, else declared rules."
)
@click.option(
    "--crash",
    is_flag=True,
    help="Kill the server in the middle of a tool run, and show that nothing is lost.",
)
@click.option("--fresh", is_flag=True, help="Write the demo's data anew.")
@json_option
@click.pass_context
def demo(ctx: click.Context, *, model: str | None, crash: bool, fresh: bool, as_json: bool) -> int:
    """Run the demo: why is SKU-4482 out of stock in Shanghai?

    An agent finds out from sales in PostgreSQL, stock levels in a key-value table, shipping manifests in the object store,
    a supply-chain service over HTTP and a forecast. The first run makes the data; later ones start at once. Afterwards:

    \b
      freehold chat retail-inventory "What is on its way to Rotterdam?"
    """
    chosen = settings(ctx)
    if chosen.url:
        raise click.UsageError(
            "the demo runs on a server of this machine: leave out --url (and FREEHOLD_URL)"
        )
    place = find_place(chosen.data_folder)
    found = running_server(chosen.data_folder)
    if found is not None and crash:
        raise click.ClickException(
            f"a server runs on {chosen.data_folder} (process {found.pid}), and --crash kills only servers of its own: "
            "stop that one, or give another folder with --data"
        )
    data_folder(chosen.data_folder)
    stage(place, chosen.output.progress, fresh=fresh)
    if found is None:
        write_settings(place, choose_port(place))
    if crash:
        return run_and_crash(chosen, place, model=model, fresh=fresh)
    with _client(chosen) as client:
        run.prepare(client, chosen, place, fresh=fresh)
        session_id, cursor = run.ask(client, chosen, model)
        transcript = Transcript(chosen.output)
        ended = follow(client, session_id, transcript, after=cursor)
    run.close(chosen, session_id, ended, transcript)
    if chosen.output.as_json:
        chosen.output.json(run.result(session_id, ended, transcript))
    return 0 if ended.outcome == "completed" else 1


@contextmanager
def _client(chosen: Settings) -> Iterator[Client]:
    found = running_server(chosen.data_folder)
    if found is not None:
        with Client(found.url, found.api_key) as client:
            yield client
        return
    with own_server(chosen.data_folder) as (_, started), Client(started.url, started.api_key) as client:
        yield client
