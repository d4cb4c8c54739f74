-- Appends move updated_at. While an index has that column, each of them writes to every index of the table, though none of their other
-- columns changed. due_at only moves with leases: of a settled session it says when its lease was given back.

DROP INDEX sessions_settled;
CREATE INDEX sessions_settled ON sessions (due_at) WHERE status IN ('idle', 'cancelled');
COMMENT ON COLUMN sessions.due_at IS 'A worker may claim a running or waiting session from this time on: when its lease runs out, since when it wants one, or its wake_at. Of a settled session: since when it is.';
