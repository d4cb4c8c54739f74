"""Catalog: the table of providers that differ only by address (`providers.toml`), read once.

Not here: prices (`prices.py`), and which provider is usable on this machine (gateway/models.py decides that).
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Final, Literal

import msgspec
from msgspec import Struct, structs

from freehold.core.errors import BadRequest
from freehold.core.resources import check_name
from freehold.core.routes import CallTimeouts

TOML: Final = "providers.toml"


class Way(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """By which wire the providers `of` are asked for their `models` (shell patterns), where a request is translated.

    `only`: they have these models by no other wire, so that a client of another one is translated for, too.
    """

    of: tuple[str, ...]
    models: tuple[str, ...]
    wire: str
    only: bool = False


class ProviderRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One address. `type` names the adapter that speaks to it, `base_url` is what that vendor's SDK would be given.

    `base_url` may hold `{VARIABLE|VARIABLE|otherwise}`, filled in from the environment (a region).
    `api_key`: environment variables to look in, first found wins; empty where no key is needed. `A:B:C?` is one credential of several
    variables, joined by colons; with a question mark it may be missing. `A@` names a file, in which the credential stands.
    `prices`: the price list's id (catalog/prices.py), None where nobody publishes prices.
    `own_names`: what bare names begin with that can only be of this vendor (ARNs).
    `local`: a server on this machine: found by asking its port, and free of charge.
    `stream_options`: it takes OpenAI's `stream_options.include_usage`; the others report usage unasked, or refuse the field.
    `tokens_max_field`: what it calls the limit of the answer's length.
    `models_path`: where it lists its models, under `base_url`; empty where it has no list.
    `own_address`: every customer of the vendor has an address of their own, and all that the row says holds at each.
    `wires`: those that it speaks besides its adapter's own. `wire` is one of them where the row is opened for that one alone, and
    empty in the file. `ways` say which of its models are asked by which, and are written apart in the file, as `[[way]]`.
    `timeouts` are those that were declared for it.
    """

    name: str
    type: str
    base_url: str
    docs: str = ""
    api_key: tuple[str, ...] = ()
    prices: str | None = None
    default_model: str | None = None
    own_names: tuple[str, ...] = ()
    local: bool = False
    stream_options: bool = True
    tokens_max_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    models_path: str = "/models"
    own_address: bool = False
    wires: tuple[str, ...] = ()
    wire: str = ""
    ways: tuple[Way, ...] = ()
    timeouts: CallTimeouts | None = None

    def way_of(self, model: str) -> Way | None:
        """The first whose patterns the name fits; None where its adapter's own wire is as good as any."""
        name = model.lower()
        fitting = (way for way in self.ways if any(fnmatchcase(name, one) for one in way.models))
        return next(fitting, None)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    provider: tuple[ProviderRow, ...]
    way: tuple[Way, ...] = ()


def decode(toml: bytes) -> Mapping[str, ProviderRow]:
    """Rows by name, in the file's order. Raises BadRequest for an unknown key, a wrong type, or a name that comes twice."""
    try:
        file = msgspec.toml.decode(toml, type=_File)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(str(error), field=TOML) from error
    table: dict[str, ProviderRow] = {}
    for row in file.provider:
        check_name(row.name, field=f"{TOML}: name")
        if row.name in table:
            raise BadRequest(f"provider {row.name!r} is declared twice", field=TOML)
        if row.ways or row.wire or row.timeouts:
            raise BadRequest(
                f"provider {row.name!r} has a wire or timeouts of its own: write [[way]], or declare it",
                field=TOML,
            )
        table[row.name] = row
    _add_ways(table, file.way)
    return table


def _add_ways(table: dict[str, ProviderRow], ways: Iterable[Way]) -> None:
    for way in ways:
        for name in way.of:
            if name not in table:
                raise BadRequest(f"a way of {name!r}, and no provider has that name", field=TOML)
            row = table[name]
            table[name] = structs.replace(row, ways=(*row.ways, way))


@cache
def providers() -> Mapping[str, ProviderRow]:
    """The rows that come with Freehold."""
    return decode(files("freehold.catalog").joinpath(TOML).read_bytes())
