"""Commands, and those below one word. What is not there is told with what is."""

from difflib import get_close_matches
from typing import Final

import click

NEAR_ENOUGH: Final = 0.5
SUMMARY_CHARS_MAX: Final = 200
"""Of what a list of commands says of each: folded, where click would break off."""


class Command(click.Command):
    """Says what it was given too much, and what it takes."""

    allow_extra_args = True  # Or click refuses them itself, in fewer words.

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        more = super().parse_args(ctx, args)
        if more and not ctx.resilient_parsing:
            taken = " ".join(one.make_metavar(ctx) for one in self.params if isinstance(one, click.Argument))
            takes = f"{taken} and no more" if taken else "no arguments"
            ctx.fail(f"{ctx.command_path} takes {takes}: leave out {' '.join(map(repr, more))}")
        return more


class Commands(click.Group):
    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known:
            near = get_close_matches(args[0], known, n=1, cutoff=NEAR_ENOUGH)
            ctx.fail(f"there is no command {args[0]!r}; {self.hint(ctx, near)}")
        return super().resolve_command(ctx, args)

    def hint(self, ctx: click.Context, near: list[str]) -> str:
        return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.list_commands(ctx))}"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        commands = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(SUMMARY_CHARS_MAX)) for name, one in commands])
