-- Ids, names and keys are text in "C" collation: they compare as bytes, on every server alike, and cost least.
-- Times are the database's own clock. Money is in pico-units (10^-12): bigint holds 9 million dollars.

CREATE TABLE sessions (
    id                     text COLLATE "C" PRIMARY KEY,
    tenant                 text COLLATE "C" NOT NULL,
    agent                  text COLLATE "C" NOT NULL,
    agent_version          integer NOT NULL,
    status                 text COLLATE "C" NOT NULL,
    version                bigint NOT NULL CHECK (version >= 0),
    epoch                  bigint NOT NULL DEFAULT 0,
    owner                  text COLLATE "C",
    due_at                 timestamptz NOT NULL DEFAULT now(),
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now(),
    cost_pico              bigint NOT NULL DEFAULT 0,
    input_tokens           bigint NOT NULL DEFAULT 0,
    output_tokens          bigint NOT NULL DEFAULT 0,
    cache_read_tokens      bigint NOT NULL DEFAULT 0,
    cache_write_tokens     bigint NOT NULL DEFAULT 0,
    cache_write_1h_tokens  bigint NOT NULL DEFAULT 0,
    reasoning_tokens       bigint NOT NULL DEFAULT 0,
    input_audio_tokens     bigint NOT NULL DEFAULT 0,
    output_audio_tokens    bigint NOT NULL DEFAULT 0,
    estimated              boolean NOT NULL DEFAULT false,
    title                  text NOT NULL,
    model                  text,
    metadata               jsonb NOT NULL,
    created_by             text NOT NULL
) WITH (
    -- Every append updates its session's row. Room on the page keeps these updates off the indexes (HOT).
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE sessions IS 'One row a session: a projection of its log (events) for lists and for workers. Only an append changes it, and a lease.';
COMMENT ON COLUMN sessions.version IS 'Number of events in the log, and the seq of the last one.';
COMMENT ON COLUMN sessions.epoch IS 'Fencing token: grows with every claim and release. An append under a lease must name the current one.';
COMMENT ON COLUMN sessions.owner IS 'The worker that holds the lease. NULL: nobody.';
COMMENT ON COLUMN sessions.due_at IS 'A worker may claim a running session from this time on: when its lease runs out, or since when it waits.';

CREATE INDEX sessions_due ON sessions (due_at) WHERE status = 'running';
CREATE INDEX sessions_of_tenant ON sessions (tenant, id);
CREATE INDEX sessions_of_agent ON sessions (tenant, agent, id);
CREATE INDEX sessions_running ON sessions (tenant, id) WHERE status = 'running';

CREATE TABLE events (
    session_id  text COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    at          timestamptz NOT NULL,
    type        text COLLATE "C" NOT NULL,
    body        bytea NOT NULL,
    PRIMARY KEY (session_id, seq)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE events IS 'The logs: append-only, seq is 1, 2, 3 ... within a session. No foreign key: the one statement that appends has its session''s row in hand.';
COMMENT ON COLUMN events.body IS 'The event as UTF-8 JSON, byte for byte. To look into it: convert_from(body, ''UTF8'')::json.';

CREATE TABLE append_keys (
    session_id  text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    version     bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, key)
);
CREATE INDEX append_keys_at ON append_keys (at);
COMMENT ON TABLE append_keys IS 'Idempotency keys of appends, with the version that the first one led to. Kept for two days.';

CREATE TABLE create_keys (
    tenant      text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    session_id  text COLLATE "C" NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, key)
);
CREATE INDEX create_keys_at ON create_keys (at);
COMMENT ON TABLE create_keys IS 'Idempotency keys of session creation. Kept for two days.';

CREATE TABLE resources (
    tenant      text COLLATE "C" NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    version     integer NOT NULL,
    archived    boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    updated_by  text NOT NULL,
    PRIMARY KEY (tenant, kind, name)
);
COMMENT ON TABLE resources IS 'What is declared: one row a resource, naming its current version.';

CREATE TABLE resource_versions (
    tenant      text COLLATE "C" NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    version     integer NOT NULL,
    body        bytea NOT NULL,
    digest      bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL,
    PRIMARY KEY (tenant, kind, name, version)
);
COMMENT ON TABLE resource_versions IS 'Every version that ever was, never changed. body: JSON in the author''s own order of keys; digest: SHA-256 of its canonical form.';

CREATE TABLE call_records (
    id                     text COLLATE "C" PRIMARY KEY,
    at                     timestamptz NOT NULL,
    tenant                 text COLLATE "C" NOT NULL,
    principal              text NOT NULL,
    wire                   text NOT NULL,
    model_requested        text NOT NULL,
    provider               text NOT NULL,
    model                  text NOT NULL,
    outcome                text NOT NULL,
    cost_pico              bigint NOT NULL,
    currency               text NOT NULL,
    priced                 boolean NOT NULL,
    duration_ms            double precision NOT NULL,
    first_event_ms         double precision,
    streamed               boolean NOT NULL,
    session_id             text COLLATE "C",
    agent                  text,
    input_tokens           bigint NOT NULL,
    output_tokens          bigint NOT NULL,
    cache_read_tokens      bigint NOT NULL,
    cache_write_tokens     bigint NOT NULL,
    cache_write_1h_tokens  bigint NOT NULL,
    reasoning_tokens       bigint NOT NULL,
    input_audio_tokens     bigint NOT NULL,
    output_audio_tokens    bigint NOT NULL,
    estimated              boolean NOT NULL
);
CREATE INDEX call_records_of_tenant ON call_records (tenant, id);
CREATE INDEX call_records_of_session ON call_records (session_id, id) WHERE session_id IS NOT NULL;
COMMENT ON TABLE call_records IS 'One line for every model call. Written in batches, a moment after the call; never changed.';

CREATE TABLE api_keys (
    id            text COLLATE "C" PRIMARY KEY,
    tenant        text COLLATE "C" NOT NULL,
    name          text NOT NULL,
    digest        bytea NOT NULL UNIQUE,
    policy        jsonb NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz
);
CREATE INDEX api_keys_of_tenant ON api_keys (tenant, id);
COMMENT ON TABLE api_keys IS 'API keys by the HMAC of their secret; the secret itself is kept nowhere.';

CREATE TABLE key_values (
    tenant      text COLLATE "C" NOT NULL,
    table_name  text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    value       json NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, table_name, key)
);
COMMENT ON TABLE key_values IS 'Applications'' tables of JSON values by key. json, not jsonb: the order of an object''s keys and the text of its numbers stay as they came.';
