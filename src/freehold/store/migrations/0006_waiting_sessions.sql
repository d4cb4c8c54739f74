-- A session may wait in the middle of a turn: for people, clients, other sessions, or a time. Then it costs its row.

ALTER TABLE sessions ADD COLUMN waits jsonb;
ALTER TABLE sessions ADD COLUMN wake_at timestamptz;
ALTER TABLE sessions ADD COLUMN parent_id text COLLATE "C";
COMMENT ON COLUMN sessions.waits IS 'What a waiting or paused session waits for, as its last event says it (SessionWaits).';
COMMENT ON COLUMN sessions.wake_at IS 'When a waiting session is due even if nobody writes to it. NULL: never.';
COMMENT ON COLUMN sessions.parent_id IS 'The session that this one works for.';
COMMENT ON COLUMN sessions.due_at IS 'A worker may claim a running or waiting session from this time on: when its lease runs out, since when it wants one, or its wake_at.';

DROP INDEX sessions_due;
CREATE INDEX sessions_due ON sessions (due_at) WHERE status IN ('running', 'waiting');
CREATE INDEX sessions_waiting ON sessions (tenant, id) WHERE status = 'waiting';
CREATE INDEX sessions_of_parent ON sessions (parent_id, id) WHERE parent_id IS NOT NULL;
