"""Network namespaces: a worker in one of its own, joined to this machine by a pair of virtual cables, one of which can be pulled.

What is cut here is cut for the kernel: packets vanish, nobody is told, and both ends find out by waiting. Needs Linux, root and the
command `ip` (iproute2). Unix sockets are not cut, so the ledger stays within reach.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from freehold.store.embedded import PORT

NETWORK = "10.213"
"""Of addresses that are routed nowhere: https://www.rfc-editor.org/rfc/rfc1918"""


def why_not() -> str | None:
    """What is missing for them, or None."""
    if shutil.which("ip") is None:
        return "the command ip is missing (apt-get install iproute2)"
    name = f"freehold-try-{os.getpid()}"
    if (tried := _tried("netns", "add", name)).returncode:
        return f"no network namespace can be made: {tried.stderr.strip()[:200]}"
    _tried("netns", "delete", name)
    return None


class Namespace:
    """As tests/store/_proxy.py's Proxy, but for the kernel. `prefix` starts a process inside."""

    def __init__(self, number: int) -> None:
        self.name = f"freehold-{os.getpid()}-{number}"
        self.address = f"{NETWORK}.{number}.1"
        self.prefix: Sequence[str] = ("ip", "netns", "exec", self.name)
        self.url = ""
        self._inside = f"{NETWORK}.{number}.2"
        self._cable = f"fh{os.getpid() % 100000}o{number}"

    def goes_to(self, url: str) -> None:
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        self.url = f"postgresql://{login}@{self.address}:{PORT}{parts.path}"

    def cut(self) -> None:
        _ip("link", "set", self._cable, "down")

    def heal(self) -> None:
        _ip("link", "set", self._cable, "up")

    freeze, thaw = cut, heal

    def make(self) -> None:
        plug = f"fh{os.getpid() % 100000}i"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", plug, "netns", self.name)
        _ip("address", "add", f"{self.address}/30", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        for words in (
            ("address", "add", f"{self._inside}/30", "dev", plug),
            ("link", "set", plug, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.name, *words)

    def remove(self) -> None:
        """The cables go with it."""
        _tried("link", "delete", self._cable)
        _tried("netns", "delete", self.name)


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    made = [Namespace(number) for number in range(1, count + 1)]
    try:
        for one in made:
            one.make()
        yield made
    finally:
        for one in made:
            one.remove()


def _tried(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def _ip(*words: str) -> None:
    told = _tried(*words)
    assert not told.returncode, f"ip {' '.join(words)}: {told.stderr}"
