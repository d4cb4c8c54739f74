"""Network namespaces: a worker in one of its own, joined to this machine by a pair of virtual cables, one of which can be pulled.

What is cut here is cut for the kernel: packets vanish, nobody is told, and both ends find out by waiting. Needs Linux, root and the
command `ip` (iproute2). Unix sockets are not cut, so the ledger stays within reach.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from freehold.store.embedded import PORT

NETWORK = "10.213"
"""Of addresses that are routed nowhere: https://www.rfc-editor.org/rfc/rfc1918. Each process has 256 of them, each namespace four."""

_OURS = re.compile(r"^freehold-(\d+)-(\d+)\b", re.MULTILINE)


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

    def __init__(self, number: int, process: int) -> None:
        network = f"{NETWORK}.{process % 256}"
        self.name = f"freehold-{process}-{number}"
        self.address = f"{network}.{4 * number + 1}"
        self.prefix: Sequence[str] = ("ip", "netns", "exec", self.name)
        self.url = ""
        self._inside = f"{network}.{4 * number + 2}"
        self._cable = f"fh{process}o{number}"
        self._plug = f"fh{process}i"

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
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", self._plug, "netns", self.name)
        _ip("address", "add", f"{self.address}/30", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        for words in (
            ("address", "add", f"{self._inside}/30", "dev", self._plug),
            ("link", "set", self._plug, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.name, *words)

    def remove(self) -> None:
        """The cables go with it."""
        _tried("link", "delete", self._cable)
        _tried("netns", "delete", self.name)


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    _remove_leftovers()
    made = [Namespace(number, os.getpid()) for number in range(count)]
    try:
        for one in made:
            one.make()
        yield made
    finally:
        for one in made:
            one.remove()


def _remove_leftovers() -> None:
    """Of processes that were killed before they could."""
    for process, number in _OURS.findall(_tried("netns", "list").stdout):
        if not os.path.exists(f"/proc/{process}"):
            Namespace(int(number), int(process)).remove()


def _tried(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def _ip(*words: str) -> None:
    told = _tried(*words)
    assert not told.returncode, f"ip {' '.join(words)}: {told.stderr}"
