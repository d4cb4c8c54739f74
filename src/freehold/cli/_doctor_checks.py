"""The doctor: one function a check, each gives findings and raises nothing. Not here: how they are shown (doctor.py)."""

import asyncio
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Literal

import click
import httpx2
from msgspec import Struct

from freehold import __version__
from freehold.catalog.catalog import ProviderRow, providers
from freehold.cli._connection import ServerFile
from freehold.cli._demo_place import find_place
from freehold.client.client import Client
from freehold.client.errors import ApiError, ServerAway
from freehold.config import Config
from freehold.core.errors import FreeholdError
from freehold.store._listen import Listener
from freehold.store.database import open_database
from freehold.store.embedded import embedded
from freehold.store.keys import PostgresKeys
from freehold.store.migrations import pending

FREE_BYTES_MIN: Final = 200 * 1024**2
FREE_BYTES_GOOD: Final = 2 * 1024**3
PROBE_TIMEOUT_S: Final = 1.0
PYTHON_MIN: Final = (3, 11)

State = Literal["ok", "failed", "warning", "absent"]
"""`absent`: not there, and that is all right. `failed` makes the doctor's exit code 1."""


class Finding(Struct, frozen=True, omit_defaults=True):
    """`remedy` says what to do, where there is something to do."""

    check: str
    state: State
    says: str
    remedy: str = ""


def python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < PYTHON_MIN:
        return Finding("Python", "failed", found, "Install Python 3.11 or newer.")
    return Finding("Python", "ok", f"{found}, Freehold {__version__}")


def data_folder(folder: Path) -> Finding:
    there = folder
    while not there.exists():
        there = there.parent
    made = "" if folder.exists() else ", made at the first start"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            "data folder",
            "failed",
            f"{folder}: this user may not write in {there}",
            "Choose another with --data or FREEHOLD_DATA.",
        )
    mode = stat.S_IMODE(folder.stat().st_mode) if folder.exists() else 0o700
    if mode & 0o077:
        return Finding(
            "data folder",
            "warning",
            f"{folder} is open to other users (mode {mode:o})",
            f"chmod 700 {folder}",
        )
    return Finding("data folder", "ok", f"{folder}{made}")


def disk(folder: Path) -> Finding:
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    says = f"{free / 1024**3:.1f} GB free where {folder} is"
    if free < FREE_BYTES_MIN:
        return Finding("disk", "failed", says, "Free some space, or choose a data folder on another disk.")
    if free < FREE_BYTES_GOOD:
        return Finding("disk", "warning", says, "Sessions only grow: free some space soon.")
    return Finding("disk", "ok", says)


def server(told: ServerFile | None) -> Finding:
    if told is None:
        return Finding(
            "server",
            "absent",
            "none runs on this data folder",
            "freehold serve starts one; other commands start their own.",
        )
    health: dict[str, Any] = httpx2.get(
        f"{told.url}/healthz", timeout=PROBE_TIMEOUT_S * 5, trust_env=False
    ).json()
    wrong = [f"{name}: {state}" for name, state in health["checks"].items() if state != "ok"]
    if wrong:
        return Finding(
            "server",
            "failed",
            f"{told.url} is not well: {'; '.join(wrong)}",
            "Mend that; the server recovers by itself.",
        )
    if health["version"] != __version__:
        return Finding(
            "server",
            "warning",
            f"{told.url} runs version {health['version']}, this is {__version__}",
            "Restart the server.",
        )
    return Finding("server", "ok", f"{told.url}, process {told.pid}")


def database(config: Config, told: ServerFile | None) -> list[Finding]:
    """PostgreSQL, the schema and the keys. With a server running, that one has them open and says so itself."""
    kind = "yours (DATABASE_URL)" if config.database.url else "embedded"
    if told is not None:
        return [
            Finding("PostgreSQL", "ok", f"{kind}, opened and migrated by the running server"),
            _served_keys(told),
        ]
    try:
        return asyncio.run(_database(config, kind))
    except FreeholdError as error:
        return [Finding("PostgreSQL", "failed", f"{kind}: {error}", error.detail or "")]


async def _database(config: Config, kind: str) -> list[Finding]:
    async with AsyncExitStack() as stack:
        url, how = config.database.url, ""
        started = time.monotonic()
        if url is None:
            there = (config.data_folder / "postgres").exists()
            folder = config.data_folder if there else Path(stack.enter_context(_temporary()))
            url = (await stack.enter_async_context(embedded(folder))).dsn()
            how = f", started in {time.monotonic() - started:.1f} s" + (
                "" if there else " (tried in a temporary folder)"
            )
        opened = await stack.enter_async_context(open_database(url, process_id="doctor"))
        health = await opened.check()
        todo = await pending(opened)
        found = [Finding("PostgreSQL", "ok", f"{kind}, version {health.server_version}{how}")]
        if todo:
            found.append(Finding("schema", "absent", f"migrations to apply at the next start: {len(todo)}"))
            return [
                *found,
                Finding("keys", "absent", "none yet: the first start makes one and prints it, once"),
            ]
        keys = await PostgresKeys(opened, Listener(opened)).list(None)
        active = sum(1 for key in keys if key.revoked_at is None)
        return [*found, Finding("schema", "ok", "up to date"), _keys(active, len(keys))]


def _temporary() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="freehold-doctor-")


def _served_keys(told: ServerFile) -> Finding:
    try:
        with Client(told.url, told.api_key) as client:
            keys = client.request("GET", "/v1/keys")["data"]
    except (ApiError, ServerAway) as error:
        return Finding("keys", "failed", str(error))
    return _keys(sum(1 for key in keys if key["status"] == "active"), len(keys))


def _keys(active: int, count: int) -> Finding:
    if not active:
        return Finding(
            "keys", "warning", f"none of {count} is active", "freehold keys create NAME makes one."
        )
    return Finding("keys", "ok", f"{active} active of {count}")


def models(config: Config, told: ServerFile | None) -> list[Finding]:
    """One line a provider that can be used, one for the rest, and one for local servers."""
    states = _served_providers(told) if told is not None else _providers(config)
    usable = [one for one in states if one["usable"]]
    found = [Finding(f"provider {one['name']}", "ok", one["why"]) for one in usable]
    others = sorted(one["name"] for one in states if not one["usable"] and not one["local"])
    if others:
        found.append(
            Finding(
                "other providers",
                "absent",
                f"no key is set: {', '.join(others)}",
                "freehold models --all says which variable each one reads.",
            )
        )
    local = [one for one in states if one["local"]]
    if local and not any(one["usable"] for one in local):
        says = (
            "looked for none (models.discover_local is false)"
            if not config.models.discover_local
            else f"none answers: {', '.join(one['name'] for one in local)}"
        )
        found.append(Finding("local models", "absent", says))
    if not usable:
        found.append(
            Finding(
                "models",
                "warning",
                "no language model can be asked; agents with rules answer by these",
                "Set OPENAI_API_KEY or ANTHROPIC_API_KEY, or start a local model server.",
            )
        )
    return found


def _served_providers(told: ServerFile) -> list[dict[str, Any]]:
    try:
        with Client(told.url, told.api_key) as client:
            listed: list[dict[str, Any]] = client.request("GET", "/v1/providers")["data"]
            return listed
    except (ApiError, ServerAway):
        return []


def _providers(config: Config) -> list[dict[str, Any]]:
    """What a server would find at its start."""
    states = []
    for row in providers().values():
        if row.local:
            usable = config.models.discover_local and _answers(row)
            why = f"answers at {row.base_url}" if usable else ""
        else:
            named = [name for name in row.api_key if _is_set(name, config)]
            usable, why = bool(named), f"{_readable(named[0]) if named else ''} is set"
        states.append({"name": row.name, "usable": usable, "why": why, "local": row.local})
    return states


def _is_set(names: str, config: Config) -> bool:
    """One variable, or several that make up one credential (catalog.py)."""
    return all(name.endswith("?") or config.environment.get(name) for name in names.split(":"))


def _readable(credential: str) -> str:
    return " and ".join(name for name in credential.split(":") if not name.endswith("?"))


def _answers(row: ProviderRow) -> bool:
    try:
        url = f"{row.base_url.rstrip('/')}{row.models_path}"
        return httpx2.get(url, timeout=PROBE_TIMEOUT_S, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def sandbox() -> Finding:
    return Finding(
        "sandbox",
        "absent",
        "there is none yet, so no kind of tool runs code that a model wrote; function tools are your own code, with the "
        "server's rights",
    )


def function_folders(config: Config) -> Iterator[Finding]:
    for name in config.tools.function_folders:
        folder = Path(name)
        if not folder.is_dir():
            yield Finding(
                "function folder",
                "failed",
                f"{folder} is not there",
                "Mend tools.function_folders in freehold.toml.",
            )
        elif folder.stat().st_mode & stat.S_IWOTH:
            yield Finding(
                "function folder",
                "warning",
                f"any user may change what the server runs from {folder}",
                f"chmod o-w {folder}",
            )
        else:
            yield Finding("function folder", "ok", str(folder))


def companions(config: Config) -> Iterator[Finding]:
    for one in config.companions:
        if shutil.which(one.command[0]) is None:
            yield Finding(
                "companion",
                "failed",
                f"{one.name}: there is no program {one.command[0]}",
                "Mend companions in freehold.toml.",
            )
        else:
            yield Finding("companion", "ok", f"{one.name}: {one.command[0]}")


def examples(folder: Path) -> Finding:
    try:
        place = find_place(folder)
    except click.ClickException as error:
        return Finding("demo", "absent", "cannot run here", error.message)
    return Finding("demo", "ok", f"freehold demo can run ({place.examples})")
