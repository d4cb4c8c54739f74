-- Tool calls that wait for an event from outside, and what came.

CREATE TABLE expected_events (
    token_digest  text COLLATE "C" PRIMARY KEY,
    tenant        text COLLATE "C" NOT NULL,
    session_id    text COLLATE "C" NOT NULL,
    call_id       text COLLATE "C" NOT NULL,
    tool          text COLLATE "C" NOT NULL,
    event         text COLLATE "C" NOT NULL,
    correlation   text COLLATE "C" NOT NULL,
    until         timestamptz NOT NULL,
    received_at   timestamptz,
    payload       text,
    due_at        timestamptz,
    tries         integer NOT NULL DEFAULT 0,
    told_at       timestamptz,
    UNIQUE (session_id, call_id)
);
CREATE INDEX expected_events_of_tenant ON expected_events (tenant, event, correlation);
CREATE INDEX expected_events_untold ON expected_events (due_at) WHERE received_at IS NOT NULL AND told_at IS NULL;
CREATE INDEX expected_events_over ON expected_events (until);
COMMENT ON TABLE expected_events IS 'One row a waiting call. The event is durable here before its sender is answered; then its session is told (told_at), over and over until that is known to have happened.';
COMMENT ON COLUMN expected_events.token_digest IS 'SHA-256 of the token, in hex. The token itself is in the session''s log alone.';
COMMENT ON COLUMN expected_events.due_at IS 'When telling is tried next.';
