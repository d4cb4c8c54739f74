"""Store: one PostgreSQL cluster in a data folder, made if it is missing. Blocking; not here: running it, roles and databases.

A cluster is initialised under another name and renamed into place when it is whole and synced, so that a crash in the middle
leaves rubbish for the next start to sweep, never half a cluster.

Sources: https://www.postgresql.org/docs/18/app-initdb.html, https://www.postgresql.org/docs/18/auth-pg-hba-conf.html
"""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from freehold.core.errors import Conflict, FreeholdError, Unavailable
from freehold.store._embedded_binaries import (
    POSTGRES_MAJOR,
    Binaries,
    Identity,
    identity_for,
    installed_binaries,
)
from freehold.store._embedded_process import (
    POLL_S,
    Cluster,
    data_address,
    evict,
    runnable_at_once,
    start_error,
)
from freehold.store._passwords import Passwords, sync_folder
from freehold.store.data_folder import folder_error

CLUSTER_NAME = "postgres"
SUPERUSER = "postgres"

FREE_BYTES_MIN = 128 * 1024 * 1024
"""A fresh cluster takes 47 MB."""
INIT_S_MAX = 120.0
SWEEP_S_MAX = 5.0

_FRESH_PREFIX = f"{CLUSTER_NAME}.new-"
_HBA = "# Only over the socket in Freehold's private folder, and only with a password.\nlocal all all scram-sha-256\n"
_NO_OTHER_USER = (errno.EPERM, errno.EACCES, errno.EINVAL)

# Written into postgresql.conf once; an operator may change them there or with ALTER SYSTEM.
TUNING: Mapping[str, str] = {
    "shared_buffers": "128MB",
    "max_connections": "200",
    "wal_level": "minimal",  # as safe in a crash; written for replicas, which need a PostgreSQL of one's own
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_wal_size": "512MB",
    "temp_file_limit": "4GB",
    "jit": "off",  # costs tens of ms on a statement's first run, pays on analytics only
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}


def prepare(folder: Path, passwords: Passwords) -> Cluster:
    """The cluster of this data folder, made at the first call. The caller holds the folder's lock.

    Raises Conflict when the cluster is of another PostgreSQL version, Unavailable when it cannot be used or made.
    """
    binaries, path = installed_binaries(), folder / CLUSTER_NAME
    identity = identity_for(path)
    try:
        for rubbish in folder.glob(f"{_FRESH_PREFIX}*"):
            _remove(rubbish)
        if not path.exists() or not any(path.iterdir()):
            _initialise(folder, path, binaries, identity, passwords.ensure(SUPERUSER))
        _check_version(path)
        if passwords.get(SUPERUSER) is None:
            raise Unavailable(
                f"{passwords.path} is missing, and with it the password of {path}. Restore it from a backup."
            )
        evict(path)
    except OSError as error:
        raise _explained(folder, identity, error) from error
    return Cluster(folder, path, binaries, identity)


def _remove(rubbish: Path) -> None:
    """Also while the `initdb` of a killed Freehold still writes there: it gives up once its files vanish."""
    deadline = time.monotonic() + SWEEP_S_MAX
    while rubbish.exists() and time.monotonic() < deadline:
        shutil.rmtree(rubbish, ignore_errors=True)
        time.sleep(POLL_S)


def _initialise(
    folder: Path, path: Path, binaries: Binaries, identity: Identity | None, password: str
) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < FREE_BYTES_MIN:
        raise Unavailable(
            f"The disk of {folder} is full: {free_bytes // 1024**2} MB are free, and a new database needs "
            f"{FREE_BYTES_MIN // 1024**2} MB. Free some space, or choose a data folder on another disk."
        )
    fresh = Path(tempfile.mkdtemp(prefix=_FRESH_PREFIX, dir=folder))
    try:
        if identity:
            os.chown(fresh, identity.init_uid, identity.init_gid)
        with runnable_at_once(binaries, identity) as programs:
            _run_initdb(programs, fresh, identity, password)
        _write_access_rules(fresh / "pg_hba.conf")
        if identity:
            _give(fresh, identity)
        sync_folder(fresh)
        fresh.rename(path)
        sync_folder(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _run_initdb(binaries: Binaries, fresh: Path, identity: Identity | None, password: str) -> None:
    reading, writing = os.pipe()
    os.write(writing, f"{password}\n".encode())
    os.close(writing)
    if identity:
        os.fchown(reading, identity.init_uid, identity.init_gid)  # initdb opens it anew, by name
    # The collation is PostgreSQL's own: one that the system brings can change its order with an upgrade, and break indexes.
    options = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8"]
    options += [
        "--auth-local=scram-sha-256",
        "--auth-host=reject",
        f"--username={SUPERUSER}",
        "--pwfile=/dev/stdin",
    ]
    options += [f"--set={name}={value}" for name, value in TUNING.items()]
    if sys.platform == "linux":
        options.append("--sync-method=syncfs")  # one call instead of one per file
    try:
        done = subprocess.run(  # noqa: S603 - our own programs and options
            [str(binaries.initdb), "-D", data_address(fresh, identity), *options],
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=fresh,
            env={"LC_ALL": "C", "TZ": "UTC"},
            umask=0o077,
            user=identity.init_uid if identity else None,
            group=identity.init_gid if identity else None,
            extra_groups=[] if identity else None,
            timeout=INIT_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"The database in {fresh.parent} was not made within {INIT_S_MAX:.0f} s: is its disk slow?"
        ) from error
    finally:
        os.close(reading)
    if done.returncode:
        raise start_error(fresh.parent, done.stdout.decode("utf-8", "replace").strip())


def _write_access_rules(path: Path) -> None:
    path.unlink()
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="ascii"
    ) as file:
        file.write(_HBA)
        file.flush()
        os.fsync(file.fileno())


def _give(tree: Path, identity: Identity) -> None:
    for _path, folders, files, descriptor in os.fwalk(tree):
        for name in (*folders, *files):
            os.chown(name, identity.uid, identity.gid, dir_fd=descriptor, follow_symlinks=False)
    os.chown(tree, identity.uid, identity.gid)


def _check_version(path: Path) -> None:
    try:
        version = (path / "PG_VERSION").read_text().strip()
    except FileNotFoundError as error:
        raise Conflict(f"{path} holds something that is not a PostgreSQL cluster. Move it away.") from error
    if version != str(POSTGRES_MAJOR):
        raise Conflict(
            f"The database in {path} was written by PostgreSQL {version}, and this Freehold brings {POSTGRES_MAJOR}. "
            f"Dump it with the Freehold that wrote it, or upgrade the folder with PostgreSQL's pg_upgrade."
        )


def _explained(folder: Path, identity: Identity | None, error: OSError) -> FreeholdError:
    if identity is None or error.errno not in _NO_OTHER_USER:
        return folder_error(folder, error)
    return Unavailable(
        f"PostgreSQL does not run as root, and Freehold may not start it as another user here ({error.strerror}). "
        "Start Freehold as an ordinary user, or set DATABASE_URL to a PostgreSQL of yours.",
        detail=str(error),
    )
