-- Kept responses and conversations are sessions of a kind of their own, on the one log. What their own tables held moves there.

ALTER TABLE sessions ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'agent';
COMMENT ON COLUMN sessions.kind IS 'What its log is about: an agent''s conversation with the world, an answer of the Responses API, or a conversation of such answers.';
COMMENT ON COLUMN sessions.agent IS 'Empty, unless its kind is agent.';
COMMENT ON COLUMN sessions.origin_id IS 'The session that this one was forked from, as whoever forked it named it. Of a response: the one that it goes on with, of which it shares no events.';

DROP INDEX sessions_of_tenant;
CREATE INDEX sessions_of_tenant ON sessions (tenant, kind, id);
DROP INDEX sessions_of_agent;
CREATE INDEX sessions_of_agent ON sessions (tenant, agent, id) WHERE kind = 'agent';

ALTER TABLE session_deletions ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'agent';

CREATE TABLE items (
    tenant      text COLLATE "C" NOT NULL,
    item_id     text COLLATE "C" NOT NULL,
    session_id  text COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,
    PRIMARY KEY (tenant, item_id, session_id, seq)
);
COMMENT ON TABLE items IS 'Which event of a response or a conversation says the item that clients know by an id: a projection of the log, written with it.';

-- Events are bytes; so bytes are put together, and what clients and vendors said is not read. A stream is text in JSON.
CREATE FUNCTION pg_temp.json_of(given text) RETURNS bytea LANGUAGE sql AS $$ SELECT convert_to(to_json(given)::text, 'UTF8') $$;
CREATE FUNCTION pg_temp.json_of(given bytea) RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
    RETURN pg_temp.json_of(convert_from(given, 'UTF8'));
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN pg_temp.json_of(convert_from(given, 'LATIN1'));
END
$$;

INSERT INTO sessions (id, tenant, kind, agent, agent_version, status, version, created_at, updated_at, due_at, title, metadata, created_by, origin_id)
SELECT r.id, r.tenant, 'response', '', 0,
       CASE r.status WHEN 'queued' THEN 'running' WHEN 'in_progress' THEN 'running' WHEN 'cancelled' THEN 'cancelled' ELSE 'idle' END,
       0, r.created_at, r.created_at, r.created_at, '', '{}', r.created_by, r.previous_id
FROM responses r;

INSERT INTO events (session_id, seq, tenant, at, type, body)
SELECT f.id, row_number() OVER (PARTITION BY f.id ORDER BY f.part, f.place), f.tenant, f.created_at, f.type, f.body
FROM (
    SELECT r.id, r.tenant, r.created_at, 1 AS part, 0::bigint AS place, 'response_asked' AS type,
           '{"type":"response_asked","by":'::bytea || pg_temp.json_of(r.created_by) || ',"input":'::bytea || r.input
           || CASE WHEN r.status IN ('queued', 'in_progress', 'cancelled') THEN ',"head":'::bytea || r.head ELSE '' END
           || coalesce(',"request":'::bytea || r.request, '') || coalesce(',"previous_id":'::bytea || pg_temp.json_of(r.previous_id), '')
           || coalesce(',"conversation_id":'::bytea || pg_temp.json_of(r.conversation_id), '')
           || CASE WHEN r.streamed THEN ',"streamed":true'::bytea ELSE '' END || '}'::bytea AS body
    FROM responses r
    UNION ALL
    SELECT r.id, r.tenant, r.created_at, 2, n.number, 'response_begun', '{"type":"response_begun"}'::bytea
    FROM responses r CROSS JOIN LATERAL generate_series(1, r.attempts) AS n (number)
    UNION ALL
    SELECT r.id, r.tenant, r.created_at, 3, e.seq, 'response_told',
           convert_to(format('{"type":"response_told","first":%s,"count":%s,"body":', e.seq, e.count), 'UTF8') || pg_temp.json_of(e.body) || '}'::bytea
    FROM responses r JOIN response_events e ON e.response_id = r.id
    UNION ALL
    SELECT r.id, r.tenant, r.created_at, 4, 0, 'response_ended',
           '{"type":"response_ended","status":'::bytea || pg_temp.json_of(r.status) || ',"head":'::bytea || r.head || ',"output":'::bytea || r.output
           || '}'::bytea
    FROM responses r WHERE r.status NOT IN ('queued', 'in_progress')
) AS f;

INSERT INTO items (tenant, item_id, session_id, seq)
SELECT DISTINCT r.tenant, i.item_id, r.id, e.seq
FROM responses r CROSS JOIN LATERAL unnest(r.item_ids) AS i (item_id)
JOIN events e ON e.session_id = r.id AND e.type = 'response_ended'
WHERE i.item_id IS NOT NULL;

INSERT INTO sessions (id, tenant, kind, agent, agent_version, status, version, created_at, updated_at, due_at, title, metadata, created_by)
SELECT c.id, c.tenant, 'conversation', '', 0, 'idle', 0, c.created_at, c.created_at, c.created_at, '', '{}', c.created_by FROM conversations c;

INSERT INTO events (session_id, seq, tenant, at, type, body)
SELECT c.id, 1, c.tenant, c.created_at, 'conversation_started',
       '{"type":"conversation_started","metadata":'::bytea || c.metadata || ',"by":'::bytea || pg_temp.json_of(c.created_by) || '}'::bytea
FROM conversations c
UNION ALL
SELECT c.id, 1 + row_number() OVER (PARTITION BY c.id ORDER BY i.seq), c.tenant, c.created_at, 'item_added',
       '{"type":"item_added","id":'::bytea || pg_temp.json_of(i.item_id) || ',"item":'::bytea || i.body || '}'::bytea
FROM conversations c JOIN conversation_items i ON i.conversation_id = c.id;

INSERT INTO items (tenant, item_id, session_id, seq)
SELECT c.tenant, i.item_id, i.conversation_id, 1 + row_number() OVER (PARTITION BY i.conversation_id ORDER BY i.seq)
FROM conversation_items i JOIN conversations c ON c.id = i.conversation_id;

UPDATE sessions s SET version = e.count
FROM (SELECT session_id, count(*) AS count FROM events GROUP BY session_id) AS e
WHERE e.session_id = s.id AND s.kind <> 'agent';

DROP FUNCTION pg_temp.json_of(text);
DROP FUNCTION pg_temp.json_of(bytea);
DROP TABLE response_events, responses, conversation_items, conversations;
