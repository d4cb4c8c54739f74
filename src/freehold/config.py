"""One frozen tree of settings, read once, passed down. The only file that reads the environment.

Order, later wins: defaults, `freehold.toml` in the data folder (or `--config FILE`), the environment, options of a command.
Files in the data folder's `freehold.d` add to `freehold.toml`: lists are joined, and no key may be set in two files.
Unknown keys are refused. Secrets stand here only as references (`env:NAME`, `file:PATH`), except `DATABASE_URL`, which is
how every host hands over a database.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest
from freehold.core.resources import SECRET
from freehold.core.validation import explained

FILE_NAME: Final = "freehold.toml"
DROP_INS_NAME: Final = "freehold.d"
PORT_DEFAULT: Final = 8484
TLS_PORT_DEFAULT: Final = 8485

# environment variable -> path of the key that it sets
_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "DATABASE_URL": ("database", "url"),
    "FREEHOLD_HOST": ("server", "host"),
    "FREEHOLD_PORT": ("server", "port"),
    "FREEHOLD_OBJECTS": ("objects", "url"),
    "FREEHOLD_LOG_LEVEL": ("log", "level"),
    "FREEHOLD_LOG_FORMAT": ("log", "format"),
    "FREEHOLD_DISCOVER_LOCAL_MODELS": ("models", "discover_local"),
}


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """`body_bytes_max`: largest request body taken, in bytes. `drain_s`: how long running work may take to end at a stop.

    HTTPS is served on `tls_port`, beside HTTP, where there is a certificate: PEM files `tls_cert` and `tls_key`, or one that
    `tls` makes.
    """

    host: str = "127.0.0.1"
    port: int = PORT_DEFAULT
    tls: Literal["self-signed"] | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_port: int = TLS_PORT_DEFAULT
    body_bytes_max: int = 33_554_432
    drain_s: float = 10.0


class Database(Struct, frozen=True, forbid_unknown_fields=True):
    """Without a `url`, Freehold keeps a PostgreSQL of its own in the data folder."""

    url: str | None = None


class ObjectsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`url`: a folder's path (default: `objects` in the data folder) or `s3://bucket/prefix`.

    `endpoint`, `region`, `access_key_id` and `secret_access_key` are for S3-compatible stores; the keys are references.
    """

    url: str | None = None
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None


class Models(Struct, frozen=True, forbid_unknown_fields=True):
    """`discover_local`: look for model servers (Ollama, vLLM, llama.cpp, LM Studio) on loopback at start.

    `upstreams` maps a client's wire (`openai_chat`, `anthropic_messages`) to an address that takes any unprefixed model.
    `recordings_folder`: the only place where providers of type `recorded` may read their files; none are offered without it.
    """

    discover_local: bool = True
    upstreams: dict[str, str] = {}
    recordings_folder: str | None = None


class Tools(Struct, frozen=True, forbid_unknown_fields=True):
    """`function_folders`: where `function` tools may name Python files of yours. They run with the server's rights."""

    function_folders: tuple[str, ...] = ()


class Runtime(Struct, frozen=True, forbid_unknown_fields=True):
    """`sessions_max`: turns at once in this process. `tenant_sessions_max`: of one tenant, in all processes together (none: no limit);
    the same in every process's configuration. `lease_s`: how long a dead worker's sessions, and requests of batches, wait
    for another. `batch_calls_max`: calls of batches at once in this process.
    """

    sessions_max: int = 256
    tenant_sessions_max: int | None = None
    lease_s: float = 10.0
    batch_calls_max: int = 16


class Responses(Struct, frozen=True, forbid_unknown_fields=True):
    """`retention_days`: how long answers of the Responses API are kept, and as long as a later one builds on them."""

    retention_days: float = 30.0


class Sessions(Struct, frozen=True, forbid_unknown_fields=True):
    """`retention_days`: how long a session at rest is kept after it was last written to; without it, until somebody deletes it."""

    retention_days: float | None = None


class Companion(Struct, frozen=True, forbid_unknown_fields=True):
    """A process that the server starts and stops with itself (a small service that a tool needs). Restarted when it ends."""

    name: str
    command: tuple[str, ...]
    ready_url: str | None = None


class Residency(Struct, frozen=True, forbid_unknown_fields=True):
    """Where this installation keeps what it keeps: its database, its objects, its logs. A session, batch or cached answer that is
    labelled `eu` is refused, or not kept, unless all its `regions` are `eu` or its `labels` say `eu = "true"`.
    """

    regions: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class Webhooks(Struct, frozen=True, forbid_unknown_fields=True):
    """`allow_private`: webhooks may be at private and local addresses, and without TLS. `timeout_s`: how long one may take to answer.
    `retry_s`: the pause after the first attempt that failed; each next one is longer, up to hours.
    """

    allow_private: bool = False
    timeout_s: float = 10.0
    retry_s: float = 5.0


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    level: str = "info"
    format: str = "auto"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`data_folder` holds the embedded database, objects, keys' pepper and `server.json`; made 0700."""

    data_folder: Path
    server: Server = Server()
    database: Database = Database()
    objects: ObjectsConfig = ObjectsConfig()
    models: Models = Models()
    tools: Tools = Tools()
    runtime: Runtime = Runtime()
    responses: Responses = Responses()
    sessions: Sessions = Sessions()
    residency: Residency = Residency()
    webhooks: Webhooks = Webhooks()
    log: Log = Log()
    companions: tuple[Companion, ...] = ()
    databases: tuple[str, ...] = ()
    """Databases that Freehold keeps for applications beside its own; their addresses are in `databases.json`."""

    environment: dict[str, str] = {}
    """The process's environment at the start: what `env:NAME` references read. Never shown, never logged."""


def default_data_folder(environment: Mapping[str, str]) -> Path:
    if chosen := environment.get("FREEHOLD_DATA"):
        return Path(chosen).expanduser().absolute()
    base = environment.get("XDG_DATA_HOME") or Path(environment.get("HOME") or Path.home(), ".local", "share")
    return Path(base, "freehold").absolute()


def read_config(
    *,
    data_folder: Path | None = None,
    file: Path | None = None,
    options: Mapping[tuple[str, ...], Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Raises BadRequest naming the file or variable, the key, what was expected and what came."""
    surroundings = dict(os.environ if environment is None else environment)
    folder = (data_folder or default_data_folder(surroundings)).absolute()
    tree: dict[str, Any] = {}
    path = file or folder / FILE_NAME
    if file is not None or path.exists():
        tree = _read_file(path)
    for extra in sorted((folder / DROP_INS_NAME).glob("*.toml")):
        _add(tree, _read_file(extra), extra)
    for variable, keys in _VARIABLES.items():
        if value := surroundings.get(variable):
            _set(tree, keys, value)
    for keys, value in (options or {}).items():
        if value is not None:
            _set(tree, keys, value)
    config = _shape(tree | {"data_folder": str(folder)}, path)
    _check_secret("objects.access_key_id", config.objects.access_key_id)
    _check_secret("objects.secret_access_key", config.objects.secret_access_key)
    return msgspec.structs.replace(config, environment=surroundings)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadRequest(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} is not TOML: {error}") from error
    for key in ("data_folder", "environment"):
        if key in tree:
            raise BadRequest(
                f"{path}: {key} cannot be set in the file (use --data or FREEHOLD_DATA)", field=key
            )
    return tree


def _add(tree: dict[str, Any], more: Mapping[str, Any], path: Path, *, above: str = "") -> None:
    for key, value in more.items():
        there = tree.get(key)
        if key not in tree:
            tree[key] = value
        elif isinstance(there, dict) and isinstance(value, dict):
            _add(there, value, path, above=f"{above}{key}.")
        elif isinstance(there, list) and isinstance(value, list):
            there += value
        else:
            raise BadRequest(f"{path}: {above}{key} is set in another file already", field=f"{above}{key}")


def _set(tree: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    *parents, last = keys
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def _shape(tree: dict[str, Any], path: Path) -> Config:
    try:
        return msgspec.convert(tree, Config, strict=False, dec_hook=_hook)
    except msgspec.ValidationError as error:
        wrong = explained(error, shape=Config)
        raise BadRequest(f"configuration ({path} or the environment): {wrong}") from error


def _hook(shape: type, value: Any) -> Any:
    if shape is Path:
        return Path(value)
    raise NotImplementedError


def _check_secret(field: str, reference: str | None) -> None:
    if reference is not None and not SECRET.fullmatch(reference):
        raise BadRequest("expected a reference (env:NAME or file:PATH), never the secret itself", field=field)
