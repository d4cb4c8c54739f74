"""Catalog: the table of providers that differ only by address (`providers.toml`), read once.

Not here: prices (`prices.py`), and which provider is usable on this machine (gateway/models.py decides that).
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final, Literal

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest
from freehold.core.resources import check_name

TOML: Final = "providers.toml"


class ProviderRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One address. `type` names the adapter that speaks to it, `base_url` is what that vendor's SDK would be given.

    `base_url` may hold `{VARIABLE|VARIABLE|otherwise}`, filled in from the environment (a region).
    `api_key`: environment variables to look in, first found wins; empty where no key is needed. `A:B:C?` is one credential of several
    variables, joined by colons; with a question mark it may be missing.
    `prices`: the price list's id (catalog/prices.py), None where nobody publishes prices.
    `own_names`: what bare names begin with that can only be of this vendor (ARNs).
    `local`: a server on this machine: found by asking its port, and free of charge.
    `stream_options`: it takes OpenAI's `stream_options.include_usage`; the others report usage unasked, or refuse the field.
    `tokens_max_field`: what it calls the limit of the answer's length.
    `models_path`: where it lists its models, under `base_url`; empty where it has no list.
    `wires`: those that it speaks besides its adapter's own, for bytes to pass through. `wire` is one of them where the row is
    opened for that one alone, and empty in the file.
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
    wires: tuple[str, ...] = ()
    wire: str = ""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    provider: tuple[ProviderRow, ...]


def decode(toml: bytes) -> Mapping[str, ProviderRow]:
    """Rows by name, in the file's order. Raises BadRequest for an unknown key, a wrong type, or a name that comes twice."""
    try:
        rows = msgspec.toml.decode(toml, type=_File).provider
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(str(error), field=TOML) from error
    table: dict[str, ProviderRow] = {}
    for row in rows:
        check_name(row.name, field=f"{TOML}: name")
        if row.name in table:
            raise BadRequest(f"provider {row.name!r} is declared twice", field=TOML)
        table[row.name] = row
    return table


@cache
def providers() -> Mapping[str, ProviderRow]:
    """The rows that come with Freehold."""
    return decode(files("freehold.catalog").joinpath(TOML).read_bytes())
