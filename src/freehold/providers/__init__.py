"""Providers: where models live. One file an adapter, found by its name; files with an underscore are shared between them.

An adapter module has `create(row, key, *, headers, pool)`, which opens nothing. `rules` is made from declared rules instead
and has no `create`. Only app.py asks here: the gateway is handed the result.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, TypeAlias

from freehold.catalog.catalog import ProviderRow
from freehold.core.ports import Provider
from freehold.providers._http import HttpPool


class Create(Protocol):
    """What an adapter's file offers as `create`."""

    def __call__(
        self, row: ProviderRow, key: str | None, *, headers: Mapping[str, str], pool: HttpPool
    ) -> Provider: ...


Open: TypeAlias = Callable[[ProviderRow, str | None, Mapping[str, str]], Provider]
"""Row, credential (None where there is none), and headers that go along with every request.

Raises BadRequest, naming the field, for an address or header that cannot be.
"""


def adapters(pool: HttpPool) -> Mapping[str, Open]:
    """By file name. A row's `type` is one of these."""
    found: dict[str, Open] = {}
    for module_info in iter_modules(__path__):
        if not module_info.name.startswith("_"):
            create = getattr(import_module(f"{__name__}.{module_info.name}"), "create", None)
            if create is not None:
                found[module_info.name] = _bound(create, pool)
    return found


def _bound(create: Create, pool: HttpPool) -> Open:
    return lambda row, key, headers: create(row, key, headers=headers, pool=pool)
