"""Answers in the database: told to other processes, replaced, forgotten, found by meaning; and a database that is away."""

import time

from tests._waiting import within

from freehold.core.answers import KeptAnswer, Likeness
from freehold.store.answers import WAITING_MAX, PostgresAnswers
from freehold.store.database import open_database

NOW_MS = int(time.time() * 1000)


def answer(
    key: bytes, body: bytes = b"{}", *, tenant: str = "acme", kept_ms: int = 0, for_s: float = 86_400
) -> KeptAnswer:
    kept_at_ms = NOW_MS + kept_ms
    return KeptAnswer(
        tenant=tenant,
        key=key,
        model="a/m",
        body=body,
        kept_at_ms=kept_at_ms,
        expires_at_ms=kept_at_ms + int(for_s * 1000),
    )


async def test_what_one_process_keeps_another_finds_within_its_tenant_and_time(store_url: str) -> None:
    async with open_database(store_url) as database:
        one, other = (
            PostgresAnswers(database, read_s_max=30, near_s_max=30),
            PostgresAnswers(database, read_s_max=30, near_s_max=30),
        )
        for kept in (answer(b"k"), answer(b"old", for_s=-1), answer(b"k", b"older", kept_ms=-10)):
            one.add(kept)
            await one.flush()
        assert await other.get("acme", b"k") == answer(b"k")
        assert await other.get("acme", b"old") is None
        assert await other.get("globex", b"k") is None
        one.add(answer(b"k", b"newer", kept_ms=5))
        await one.flush()
        found = await other.get("acme", b"k")
        assert found is not None
        assert found.body == b"newer"


async def test_the_most_similar_of_the_same_context_is_found_above_the_threshold(store_url: str) -> None:
    async with open_database(store_url) as database:
        answers = PostgresAnswers(database, read_s_max=30, near_s_max=30)
        assert await answers.finds_likeness()
        for key, context, vector in (
            (b"near", b"c", [1.0, 0.1]),
            (b"far", b"c", [0.0, 1.0]),
            (b"same", b"other context", [1.0, 0.0]),
            (b"longer", b"c", [1.0, 0.0, 0.0]),
        ):
            answers.add(answer(key), Likeness(context, vector))
        answers.add(answer(b"same", tenant="globex"), Likeness(b"c", [1.0, 0.0]))
        answers.add(answer(b"gone", for_s=-1), Likeness(b"c", [1.0, 0.0]))
        await answers.flush()
        found = await answers.near("acme", Likeness(b"c", [1.0, 0.0]), similarity_min=0.9)
        assert found is not None
        assert found[0].key == b"near"
        assert 0.99 < found[1] < 1
        assert await answers.near("acme", Likeness(b"c", [1.0, 0.0]), similarity_min=0.999) is None
        assert await answers.near("acme", Likeness(b"c", [0.0, 0.0]), similarity_min=0.1) is None


async def test_with_the_database_away_nothing_is_found_nothing_raised_and_memory_is_bounded(
    store_url: str,
) -> None:
    async with open_database(store_url) as database:
        pass
    answers = PostgresAnswers(database, read_s_max=30, near_s_max=30)  # Its connections are closed.
    for number in range(WAITING_MAX + 10):
        answers.add(answer(str(number).encode()))
    async with within("an answer without the database"):
        assert await answers.get("acme", b"1") is None
        assert await answers.near("acme", Likeness(b"c", [1.0]), similarity_min=0.5) is None
    assert len(answers._waiting) == WAITING_MAX
