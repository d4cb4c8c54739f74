"""One cell of the matrix: a feature, asked through a client's SDK of a vendor's wire. What the vendor heard, what the SDK made of it."""

from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import structs

from tests.gateway._vendors import Step, Vendor
from tests.matrix import schemas
from tests.matrix._features import Feature, Mode
from tests.matrix._words import Again, Answer, Ask, Assistant, Call, Said, Thought
from tests.matrix._world import MODEL, MatrixWorld, provider, vendors


class Cell:
    def __init__(
        self, matrix: MatrixWorld, client: Any, sdk: Any, vendor: str, feature: Feature, mode: Mode
    ) -> None:
        self.matrix = matrix
        self.feature = feature
        self.vendor = vendor
        self.streams = mode == "stream"
        self.client = client
        self.sdk = sdk

    async def holds(self) -> None:
        feature = self.feature
        said = await self.exchange(feature.ask, self.vendor)
        if feature.then is None:
            return
        names = list(vendors())
        following = names[(names.index(self.vendor) + 1) % len(names)] if feature.elsewhere else self.vendor
        again = feature.then(said)
        await self.exchange(_given_back(again, self.told(feature.answer, self.vendor)), following)

    async def exchange(self, ask: Ask, wire: str) -> Said:
        """One call. Asserts what the vendor heard and what the client was told."""
        ask = structs.replace(ask, stream=self.streams)
        driver = vendors()[wire]
        vendor = self.matrix.play(wire, self.script(driver))
        said: Said = await self.client.ask(self.sdk, f"{provider(wire)}/{MODEL}", ask)
        answered_rightly(self.matrix, self.client.WIRE)
        expected = _heard(ask, self.client, driver, same=wire == self.vendor)
        _heard_rightly(
            vendor, driver, expected, beyond=self.client.GIVES_BACK if wire == self.client.WIRE else ()
        )
        assert _sealed(said.answer) == _sealed(self.told(self.feature.answer, wire))
        return said

    def told(self, answer: Answer, wire: str) -> Answer:
        told: Answer = self.client.can_tell(vendors()[wire].can_tell(answer), stream=self.streams)
        return told

    def script(self, driver: Any) -> list[Step]:
        feature = self.feature
        if not self.streams:
            return list(driver.whole(feature.answer))
        pieces = driver.pieces(feature.answer)
        if feature.comments:
            pieces = [data for piece in pieces for data in (piece, driver.comment()) if data]
        if feature.chunk_bytes:
            data, size = b"".join(pieces), feature.chunk_bytes
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
        return list(driver.streamed(pieces))


def _heard_rightly(vendor: Vendor, driver: Any, expected: Ask, *, beyond: Collection[str]) -> None:
    """`beyond`: names of fields that are the SDK's own fault."""
    (asked,) = vendor.asked
    assert asked.path == driver.path(MODEL, stream=expected.stream)
    wrong = [f"{path}: {said}" for path, said in driver.wrong(asked) if path.rpartition(".")[2] not in beyond]
    wrong += [f"{path}: {said}" for path, said in schemas.of_request(driver.WIRE, asked)]
    assert "\n".join(wrong) == ""
    assert asked.json.get("model", MODEL) == MODEL
    heard, expected = _spaced_alike(driver.heard(asked)), _spaced_alike(expected)
    for field in Ask.__struct_fields__:
        assert getattr(heard, field) == getattr(expected, field), field


def answered_rightly(matrix: MatrixWorld, client: str) -> None:
    """Held against what the client's vendor publishes, whatever its SDK would put up with."""
    (answered,) = matrix.tap.taken()
    wrong = [f"{path}: {said}" for path, said in schemas.of_answer(client, answered)]
    assert "\n".join(wrong) == ""


def _spaced_alike(ask: Ask) -> Ask:
    """Arguments are JSON: how it is spaced says nothing, and some SDKs write it anew."""
    turns = []
    for turn in ask.turns:
        if isinstance(turn, Assistant):
            turn = structs.replace(turn, calls=tuple(map(_respaced, turn.calls)))
        turns.append(turn)
    return structs.replace(ask, turns=tuple(turns))


def _respaced(call: Call) -> Call:
    try:
        return structs.replace(call, arguments=msgspec.json.format(call.arguments, indent=-1))
    except msgspec.DecodeError:
        return call


def _given_back(ask: Ask, told: Answer) -> Ask:
    """Seals that a client keeps for another vendor are in our packing: what counts is what the vendor said."""
    turn_told = Assistant(told.text, told.calls, told.thoughts)
    turns = tuple(
        structs.replace(turn, turn=turn_told) if isinstance(turn, Again) else turn for turn in ask.turns
    )
    return structs.replace(ask, turns=turns)


def _heard(ask: Ask, client: Any, driver: Any, *, same: bool) -> Ask:
    turns = tuple(
        _plain(turn, same=same) if isinstance(turn, Again) else turn for turn in client.can_ask(ask).turns
    )
    expected: Ask = driver.can_hear(structs.replace(client.can_ask(ask), turns=turns), client.WIRE)
    return expected


def _plain(turn: Again, *, same: bool) -> Assistant:
    """Thoughts go back to whom they came from only."""
    return turn.turn if same else structs.replace(turn.turn, thoughts=())


def _sealed(answer: Answer) -> Answer:
    """Whether there are seals, not what is on them, nor whether the vendor has them in the thought or after it."""
    if not answer.thoughts:
        return answer
    text = "".join(thought.text for thought in answer.thoughts)
    sealed = any(thought.seal for thought in answer.thoughts)
    return structs.replace(answer, thoughts=(Thought(text, "sealed" if sealed else ""),))
