"""A vendor that takes every request at once, and answers when it is let."""

import asyncio
from collections.abc import Sequence

from tests.gateway._vendors import Step, Vendor


class GatedVendor(Vendor):
    """`gate` lets answers out; `asked` has what came before."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        super().__init__(*scripts)
        self.gate = asyncio.Event()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return await super()._answer(reader, _Gated(writer, self.gate))  # type: ignore[arg-type]


class _Gated:
    def __init__(self, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        self._writer = writer
        self._gate = gate
        self._held = b""

    def write(self, data: bytes) -> None:
        self._held += data

    async def drain(self) -> None:
        await self._gate.wait()
        held, self._held = self._held, b""
        self._writer.write(held)
        await self._writer.drain()
