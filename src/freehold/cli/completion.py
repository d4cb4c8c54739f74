"""`freehold completion SHELL`: the script that makes the shell complete commands and options."""

import click
from click.shell_completion import get_completion_class

from freehold.cli._group import Command


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
      eval "$(freehold completion bash)"      # in ~/.bashrc
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "freehold", "_FREEHOLD_COMPLETE").source())
