"""Wires: vendors' formats for one model call, each a pure codec in both directions (core/ports.py: Wire).

A wire is one file, or one folder, whose name is the wire's: it has `WIRE` and `ADVISORY` (see _fields.py), or, where texts become
vectors, `EMBEDDINGS`. What several share is in files with a leading underscore. Not here: addresses, credentials and vendors'
quirks (providers), the HTTP door (server).
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from freehold.core.errors import NotFound
from freehold.core.ports import Wire
from freehold.wires._marks import holds as holds
from freehold.wires._marks import holds_two as holds_two
from freehold.wires._opaque import holds_packed as holds_packed
from freehold.wires._paths import path_in as path_in


@cache
def names() -> tuple[str, ...]:
    """Of model calls that answer in words."""
    found = (one.name for one in iter_modules(__path__) if not one.name.startswith("_"))
    return tuple(sorted(name for name in found if hasattr(import_module(f"{__name__}.{name}"), "WIRE")))


@cache
def named(name: str) -> Wire:
    """Raises NotFound, listing what there is."""
    if name not in names():
        raise NotFound(f"no wire {name!r}; known: {', '.join(names())}")
    wire: Wire = import_module(f"{__name__}.{name}").WIRE
    return wire
