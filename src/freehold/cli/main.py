"""`freehold`: the commands, each loaded when it is asked for (a start costs what the command needs, no more).

Exit codes: 0 done; 1 refused or failed, and the message says why; 2 wrong usage; 3 no server; 130 interrupted.
"""

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from freehold import __version__
from freehold.cli._group import Commands
from freehold.client.errors import ApiError, ServerAway
from freehold.core.errors import FreeholdError

EXIT_FAILED: Final = 1
EXIT_NO_SERVER: Final = 3
EXIT_INTERRUPTED: Final = 130

# command -> (module, what it does in the list of commands)
_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "apply": ("apply", "Apply a template: says what it will change, and does it."),
    "archive": ("get", "Take declared resources out of use."),
    "batches": ("batches", "List, show and cancel batches of calls."),
    "budgets": ("budgets", "Show what is left of budgets, or of limits."),
    "chat": ("chat", "Talk with an agent."),
    "completion": ("completion", "Print the completion script for a shell."),
    "costs": ("costs", "Show what a month cost, by team, model, agent and more."),
    "data": ("data", "Put data where agents can read it: tables and objects."),
    "deployments": (
        "deployments",
        "Set agents to work by schedules: list, run, pause, and when they run next.",
    ),
    "demo": ("demo", "Run the demo: an agent answers a question over a company's data."),
    "describe": ("get", "Show one resource whole."),
    "dev": ("dev", "A throwaway server for tests: prints one JSON line, leaves nothing behind."),
    "doctor": ("doctor", "Check everything that Freehold needs, and say what to do."),
    "experiments": ("experiments", "Compare the arms of a route's experiment."),
    "get": ("get", "List declared resources."),
    "keys": ("keys", "Make, list and revoke API keys."),
    "models": ("models", "List the models that can be called here."),
    "retention": ("retention", "Show which sessions have been kept long enough, and let them go."),
    "routes": ("routes", "Explain which model a route would take, and why."),
    "serve": ("serve", "Run the server."),
    "worker": ("worker", "Carry sessions forward, beside a server or on another machine."),
    "sessions": ("sessions", "List, show, follow and cancel sessions."),
    "webhooks": ("webhooks", "Tell other services what happens: declare, test, look, deliver again."),
    "slos": ("slos", "Show how routes serve against what they declare."),
    "tools": ("tools", "List tools, and how busy those with a limit are."),
}


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """A SIGINT meanwhile is heard in the end, here.

    In the middle of an import it may be lost (what a weak reference's callback raises is only printed), or end the process by
    the signal instead of with its exit code (where it passes an `exec`, as of named tuples, Python does so although it was caught).
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Lazy(Commands):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        with _interrupted_afterwards():
            module = importlib.import_module(f"freehold.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def hint(self, ctx: click.Context, near: list[str]) -> str:
        return super().hint(ctx, near) if near else f"{ctx.info_name} --help lists what there is"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in sorted(_COMMANDS)])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="freehold")
@click.option("--data", metavar="FOLDER", help="Data folder of the local server. [env: FREEHOLD_DATA]")
@click.option(
    "--url",
    metavar="URL",
    envvar="FREEHOLD_URL",
    help="Address of a server. [env: FREEHOLD_URL; default: the local one]",
)
@click.option(
    "--api-key", metavar="KEY", envvar="FREEHOLD_API_KEY", help="Key for --url. [env: FREEHOLD_API_KEY]"
)
@click.option(
    "--json", "as_json", is_flag=True, help="Answer in JSON on standard output; nothing else goes there."
)
@click.pass_context
def cli(ctx: click.Context, *, data: str | None, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Any model behind one parameter; agents that are declared, durable and yours.

    Commands talk to the server at --url, else to the one that runs on the local data folder, else to one that they start
    for as long as they take.
    """
    ctx.obj = {"data": data, "url": url, "api_key": api_key, "json": as_json}


def main() -> None:
    """Runs a command. Every foreseen error ends as one clear message on standard error and an exit code."""
    try:
        result: Any = cli.main(prog_name="freehold", standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Abort:
        _end(EXIT_INTERRUPTED, "interrupted", "interrupted")
    except KeyboardInterrupt:
        _end(EXIT_INTERRUPTED, "interrupted", "interrupted; what was finished is kept")
    except click.ClickException as error:
        _wrong_usage(error)
    except ServerAway as error:
        _end(EXIT_NO_SERVER, "unavailable", str(error))
    except ApiError as error:
        hint = f" (request {error.request_id})" if error.request_id and error.status >= 500 else ""
        _end(EXIT_FAILED, error.type, f"{error.message}{hint}")
    except FreeholdError as error:
        _end(EXIT_FAILED, error.code, f"{error}" + (f"\n{error.detail}" if error.detail else ""))
    except BrokenPipeError:
        # Whoever read our output has had enough; what is left in the buffer can go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)


def _wrong_usage(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and not _wants_json():
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None and not _wants_json():
        click.echo(f"{context.get_usage()}\nTry '{context.command_path} --help'.\n", err=True)
    _end(error.exit_code, "usage", error.format_message())


def _wants_json() -> bool:
    return "--json" in sys.argv[1:]


def _end(code: int, kind: str, message: str) -> None:
    # Loaded only here: `--help` and completion take a third of the time without it.
    from freehold.cli._output import Output  # noqa: PLC0415

    Output(as_json=_wants_json()).error(kind, message)
    sys.exit(code)


if __name__ == "__main__":
    main()
