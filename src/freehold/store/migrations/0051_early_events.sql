-- Events that come before anybody waits for them are kept for a while: whoever begins to wait then has them.

CREATE TABLE early_events (
    tenant       text COLLATE "C" NOT NULL,
    event        text COLLATE "C" NOT NULL,
    correlation  text COLLATE "C" NOT NULL,
    payload      text NOT NULL,
    kept_until   timestamptz NOT NULL,
    PRIMARY KEY (tenant, event, correlation)
);
CREATE INDEX early_events_of_tenant ON early_events (tenant, kept_until);
CREATE INDEX early_events_over ON early_events (kept_until);
COMMENT ON TABLE early_events IS 'What was reported while nobody waited for it. Each session that begins to wait for it before kept_until is given it once (expected_events).';
