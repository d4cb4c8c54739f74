"""What the tables of an earlier release held of responses and conversations stands in the log after the migration."""

from pathlib import Path

import asyncpg
import pytest

from freehold.core.response_facts import ResponseTold
from freehold.store.blobs import open_objects
from freehold.store.database import SCHEMA, open_database
from freehold.store.migrations import known, migrate
from freehold.store.store import open_store

MOVES = 46

BEFORE = """
INSERT INTO responses (id, tenant, created_by, status, previous_id, conversation_id, streamed, head, input, output, request, item_ids, attempts)
VALUES
('resp_1', 't', 'key "1"', 'completed', NULL, NULL, false, '{"model":"m","a":1}', '[{"a":1}]', '[{"id":"msg_1"}]', NULL, '{msg_1,msg_1}', 0),
('resp_2', 't', 'key_1', 'failed', 'resp_1', 'conv_1', true, '{"model":"m"}', '[2]', '[]', NULL, NULL, 2),
('resp_3', 't', 'key_1', 'in_progress', 'resp_1', NULL, true, '{"model":"m"}', '[3]', '[]', '{"q":1}', NULL, 1),
('resp_4', 't', 'key_1', 'cancelled', NULL, NULL, false, '{"model":"m"}', '[4]', '[]', NULL, NULL, 1);
INSERT INTO response_events (response_id, seq, count, body) VALUES
('resp_2', 0, 2, convert_to(E'data: {"x":"é"}\\n\\n', 'UTF8')), ('resp_2', 2, 1, 'c'), ('resp_3', 0, 2, 'ab');
INSERT INTO conversations (id, tenant, created_by, metadata, items_ever) VALUES ('conv_1', 't', 'key_1', '{"k":"v"}', 3);
INSERT INTO conversation_items (conversation_id, seq, item_id, body) VALUES
('conv_1', 1, 'msg_a', '{"a":1}'), ('conv_1', 3, 'msg_b', '{"b":2}');
"""


@pytest.mark.slow
async def test_responses_and_conversations_of_an_earlier_release_are_moved(
    empty_url: str, tmp_path: Path
) -> None:
    async with open_database(empty_url) as database:
        await migrate(database, [one for one in known() if one.version < MOVES])
    connection = await asyncpg.connect(empty_url, server_settings={"search_path": SCHEMA})
    await connection.execute(BEFORE)
    await connection.close()
    async with open_store(empty_url, objects=open_objects(str(tmp_path)), process_id="here") as store:
        one = await store.responses.get("t", "resp_1")
        assert (one.status, one.created_by, one.head) == ("completed", 'key "1"', b'{"model":"m","a":1}')
        assert (one.input, one.output) == (b'[{"a":1}]', b'[{"id":"msg_1"}]')
        assert [found.id for found in await store.responses.with_items("t", ["msg_1"])] == ["resp_1"]
        two = await store.responses.get("t", "resp_2")
        assert (two.status, two.attempts, two.streamed, two.conversation_id) == ("failed", 2, True, "conv_1")
        assert await store.responses.told_count("resp_2") == 3
        told = [one.event for one in await store.log.read("resp_2")]
        assert [one.body for one in told if isinstance(one, ResponseTold)] == ['data: {"x":"é"}\n\n', "c"]
        assert [past.id for past in await store.responses.history("t", "resp_2")] == ["resp_1", "resp_2"]
        three = await store.responses.get("t", "resp_3")
        assert (three.status, three.attempts, three.request) == ("in_progress", 1, b'{"q":1}')
        (lease,) = await store.log.claim("worker", limit=10, lease_s=10)
        assert (lease.session_id, lease.kind) == ("resp_3", "response")
        await store.responses.end(lease, three)
        assert (await store.responses.get("t", "resp_4")).status == "cancelled"
        begun = await store.conversations.get("t", "conv_1")
        assert (begun.metadata, begun.created_by) == (b'{"k":"v"}', "key_1")
        assert [item.id for item in await store.conversations.every("t", "conv_1")] == ["msg_a", "msg_b"]
        assert (await store.conversations.item("t", "conv_1", "msg_b")).body == b'{"b":2}'
        for session_id in ("resp_1", "resp_2", "resp_3", "resp_4", "conv_1"):
            row = await store.log.get("t", session_id)
            assert row.version == len(await store.log.read(session_id)) > 0
