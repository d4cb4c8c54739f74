"""PostgreSQL's and the network's faults as causes a caller can act on: the one place of the store that knows both.

Messages say what to do; addresses and the server's own words go to `detail`.
Source of the codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from freehold.core.errors import BadRequest, Conflict, FreeholdError, Internal, Overloaded, Unavailable

_ADVICE: Final[dict[str, str]] = {
    "28": "the database refused the user: check user and password in DATABASE_URL",
    "3D000": "the server has no such database: create it, or correct the name in DATABASE_URL",
    "42501": "the database user lacks a privilege: it needs to own Freehold's schema",
    "53100": "the database's disk is full: free space on the server, then try again",
    "53200": "the database is out of memory: give the server more, or lower its load",
    "25006": "the database is read-only (a standby?): DATABASE_URL must name the primary",
    "57014": "the database gave up on a statement that took too long: try again",
    "42P01": "the database lacks a table of Freehold's: run the migrations against it",
    "3F000": "the database lacks Freehold's schema: run the migrations against it",
}
"""By SQLSTATE, or its first two characters for a whole class."""

_AWAY: Final = "the database cannot be reached or hung up: check that it runs and that DATABASE_URL is right"

TRANSIENT = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""The server rolled back and nothing happened: the same statement may simply run again."""


def translate(error: Exception, doing: str) -> FreeholdError:
    """`doing` names what was attempted, as in "appending to a session"."""
    detail = f"{type(error).__name__}: {error}"
    match error:
        case FreeholdError():
            return error
        case asyncpg.DataError() | UnicodeError():
            return BadRequest(f"{doing}: the database cannot hold this text or number", detail=detail)
        case asyncpg.TooManyConnectionsError():
            return Overloaded(f"{doing}: the database has no free connection: try again", detail=detail)
        case (
            asyncpg.IntegrityConstraintViolationError()
            | asyncpg.SerializationError()
            | asyncpg.DeadlockDetectedError()
        ):
            return Conflict(f"{doing}: somebody else was first: read again, then decide", detail=detail)
        case asyncpg.InvalidCachedStatementError():
            return Unavailable(f"{doing}: the database's schema just changed: try again", detail=detail)
        case asyncpg.PostgresError():
            return _of_state(error.sqlstate or "", doing, detail)
        case TimeoutError():
            return Unavailable(f"{doing}: the database did not answer in time: try again", detail=detail)
        case asyncpg.ClientConfigurationError():
            return BadRequest(
                "expected an address like postgresql://user:password@host:5432/name",
                field="DATABASE_URL",
                detail=detail,
            )
        case OSError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return Unavailable(f"{doing}: {_AWAY}", detail=detail)
        case _:
            return Internal(f"{doing}: an unexpected fault in the store", detail=detail)


def _of_state(state: str, doing: str, detail: str) -> FreeholdError:
    advice = _ADVICE.get(state) or _ADVICE.get(state[:2])
    if advice is not None:
        return Unavailable(f"{doing}: {advice}", detail=detail)
    if state[:2] in {"08", "53", "57"} or state == "25P03":
        return Unavailable(f"{doing}: {_AWAY}", detail=detail)
    return Internal(f"{doing}: the database refused a statement", detail=f"{state} {detail}")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raises FreeholdErrors instead of the driver's; cancellation passes through."""
    try:
        yield
    except FreeholdError:
        raise
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        UnicodeError,
    ) as error:
        raise translate(error, doing) from error
