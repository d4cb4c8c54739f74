"""Store: further databases for applications' own data, in the embedded PostgreSQL or in one of yours. Not here: Freehold's tables.

Each has two roles: `<name>_owner`, who may do everything in it, and `<name>_reader`, who may only look. Neither can enter another
database. The reader is safe by what it is *not* granted; its read-only default and its time limit are courtesies on top, since
every role may change its own settings.

Sources: https://www.postgresql.org/docs/18/ddl-priv.html, https://www.postgresql.org/docs/18/sql-alterdefaultprivileges.html,
https://www.postgresql.org/docs/18/role-attributes.html
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from freehold.core.errors import BadRequest, Conflict, Forbidden, Unavailable, Unsupported
from freehold.store._passwords import Passwords

NAME_CHARS_MAX = 48
"""PostgreSQL's limit is 63, and the roles' names are longer than the database's."""
READER_CONNECTIONS_MAX = 20
READER_STATEMENT_S = 30
STATEMENT_S_MAX = 60.0
CONNECT_S_MAX = 30.0
SERVER_VERSION_MIN = 15
"""The first whose `public` schema is closed to strangers."""

_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{NAME_CHARS_MAX - 1}}}")
_RESERVED = frozenset({"freehold", "postgres", "template0", "template1"})
_CREDENTIALS = frozenset({"user", "password", "passfile", "database", "dbname"})
_LOCK = 0x66726565686F6C64  # "freehold": one at a time prepares databases on a server

_FACTS = """
SELECT current_setting('server_version_num')::int / 10000 AS version, current_user AS me, rolsuper AS super,
       rolcreatedb AS creates_databases, rolcreaterole AS creates_roles, current_database() AS here,
       has_database_privilege('public', current_database(), 'CONNECT') AS here_is_open,
       (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()) AS here_is_mine
FROM pg_roles WHERE rolname = current_user
"""
_OWNER_OF = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1"
_ROLE_EXISTS = "SELECT 1 FROM pg_roles WHERE rolname = $1"


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """For asyncpg. They hold passwords, so they are not shown."""

    owner: str = field(repr=False)
    reader: str = field(repr=False)


class Databases:
    """Databases on the server that `url` names. The roles' passwords are kept in `passwords`."""

    def __init__(self, url: str, passwords: Passwords) -> None:
        self._url = url
        self._passwords = passwords

    async def ensure(self, name: str) -> DatabaseUrls:
        """The database and its two roles, made where they are missing; the same URLs at every call.

        Raises BadRequest for a name that cannot be one, Forbidden when our role may not create databases and roles (or may not
        close Freehold's own database to others), Conflict when the name is somebody else's, Unavailable when the server is away.
        """
        _check_name(name)
        owner, reader = f"{name}_owner", f"{name}_reader"
        await self._connected(self._url, lambda connection: self._provide(connection, name))
        urls = DatabaseUrls(owner=self._address(owner, name), reader=self._address(reader, name))
        await self._connected(urls.owner, lambda connection: _grant(connection, reader))
        return urls

    async def _provide(self, connection: asyncpg.Connection, name: str) -> None:
        owner, reader = f"{name}_owner", f"{name}_reader"
        await connection.execute(f"SELECT pg_advisory_lock({_LOCK})")  # until this connection ends
        facts = await connection.fetchrow(_FACTS)
        _check_server(facts, name)
        if facts["here_is_open"]:
            await _close_own(connection, facts)
        for role, limits in ((owner, ""), (reader, f"CONNECTION LIMIT {READER_CONNECTIONS_MAX}")):
            await self._provide_role(connection, role, limits)
        await connection.execute(f"ALTER ROLE {reader} SET default_transaction_read_only = on")
        await connection.execute(f"ALTER ROLE {reader} SET statement_timeout = '{READER_STATEMENT_S}s'")
        if not facts["super"]:
            # Who may create a role is not yet one of it, and only then may own things in its name.
            await connection.execute(f"GRANT {owner} TO CURRENT_USER")
        holder = await connection.fetchval(_OWNER_OF, name)
        if holder is None:
            await connection.execute(f"CREATE DATABASE {name} OWNER {owner}")
        elif holder != owner:
            raise Conflict(
                f"There is a database {name} already, and it belongs to {holder}, not to {owner}. Choose another name."
            )
        await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO {reader}")

    async def _provide_role(self, connection: asyncpg.Connection, role: str, limits: str) -> None:
        if not await connection.fetchval(_ROLE_EXISTS, role):
            password = self._passwords.ensure(role)
            await connection.execute(f"CREATE ROLE {role} LOGIN {limits} PASSWORD '{password}'")
        elif self._passwords.get(role) is None:
            raise _unknown_password(role, self._passwords)

    async def _connected(self, url: str, work: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        try:
            connection = await asyncpg.connect(url, timeout=CONNECT_S_MAX, command_timeout=STATEMENT_S_MAX)
            try:
                await work(connection)
            finally:
                await connection.close()
        except asyncpg.InvalidPasswordError as error:
            if url == self._url:
                raise Unavailable(
                    "PostgreSQL does not accept the user or password of DATABASE_URL."
                ) from error
            raise _unknown_password(urlsplit(url).username or "", self._passwords) from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise Forbidden(
                "PostgreSQL does not let Freehold's role prepare this database.", detail=str(error)
            ) from error
        except asyncpg.DiskFullError as error:
            raise Unavailable(
                "The disk of PostgreSQL is full. Free some space.", detail=str(error)
            ) from error
        except (
            OSError,
            TimeoutError,
            asyncpg.PostgresConnectionError,
            asyncpg.CannotConnectNowError,
        ) as error:
            raise Unavailable("PostgreSQL cannot be reached. Is it running?", detail=str(error)) from error

    def _address(self, role: str, database: str) -> str:
        """The server's URL with another role, password and database; hosts and TLS options stay."""
        parts = urlsplit(self._url)
        hosts = parts.netloc.rpartition("@")[2]
        options = [(key, value) for key, value in parse_qsl(parts.query) if key not in _CREDENTIALS]
        place = f"{role}:{self._passwords.ensure(role)}@{hosts}"
        return urlunsplit((parts.scheme, place, f"/{database}", urlencode(options), ""))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"A database's name is a small letter followed by small letters, digits or _, at most {NAME_CHARS_MAX} "
            f"in all; this is {name!r:.80}",
            field="name",
        )
    if name in _RESERVED:
        raise BadRequest(
            f"The database {name!r} is not for applications' data. Choose another name.", field="name"
        )


def _check_server(facts: asyncpg.Record, name: str) -> None:
    me = facts["me"]
    if facts["version"] < SERVER_VERSION_MIN:
        raise Unsupported(
            f"Databases for applications need PostgreSQL {SERVER_VERSION_MIN} or later; this is {facts['version']}."
        )
    if name == facts["here"]:
        raise BadRequest(
            f"The database {name!r} holds Freehold's own data. Choose another name.", field="name"
        )
    if not facts["super"] and not (facts["creates_databases"] and facts["creates_roles"]):
        raise Forbidden(
            f'The role {me} may not create databases and roles. As an administrator, run: ALTER ROLE "{me}" CREATEDB CREATEROLE;'
        )


async def _close_own(connection: asyncpg.Connection, facts: asyncpg.Record) -> None:
    """Freehold's own database is not to be entered by the roles of others."""
    here = '"' + facts["here"].replace('"', '""') + '"'
    if not (facts["here_is_mine"] or facts["super"]):
        raise Forbidden(
            f"Every role of this server can connect to Freehold's own database {here}. As its owner, run: "
            f'REVOKE CONNECT ON DATABASE {here} FROM PUBLIC; GRANT CONNECT ON DATABASE {here} TO "{facts["me"]}";'
        )
    await connection.execute(f"REVOKE CONNECT ON DATABASE {here} FROM PUBLIC")


async def _grant(connection: asyncpg.Connection, reader: str) -> None:
    """As the database's owner: the reader sees what is there, and what the owner makes later."""
    async with connection.transaction():
        await connection.execute(f"GRANT USAGE ON SCHEMA public TO {reader}")
        await connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}")
        await connection.execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {reader}")
        await connection.execute(f"ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO {reader}")


def _unknown_password(role: str, passwords: Passwords) -> Conflict:
    return Conflict(
        f"PostgreSQL has a role {role} whose password is not the one in {passwords.path}. Copy that file from the "
        f"installation that made the role, or drop the role."
    )
