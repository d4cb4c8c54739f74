-- A fork shares the beginning of another session's log, by reference; and what a model was equipped with is kept once, by its digest.

ALTER TABLE sessions ADD COLUMN origin_id text COLLATE "C";
ALTER TABLE sessions ADD COLUMN origin_seq bigint;
ALTER TABLE sessions ADD COLUMN forks_count integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN sessions.origin_id IS 'The session that this one was forked from, as whoever forked it named it.';
COMMENT ON COLUMN sessions.origin_seq IS 'Its last event that both have. This session''s own events go on behind it.';
COMMENT ON COLUMN sessions.forks_count IS 'How many sessions read events of this one as their own beginning. Its events may be deleted only at 0.';
CREATE INDEX sessions_of_origin ON sessions (origin_id, id) WHERE origin_id IS NOT NULL;

CREATE TABLE fork_segments (
    session_id  text COLLATE "C" NOT NULL,
    after_seq   bigint NOT NULL,
    up_to_seq   bigint NOT NULL,
    holder_id   text COLLATE "C" NOT NULL,
    PRIMARY KEY (session_id, after_seq),
    CHECK (after_seq < up_to_seq)
);
CREATE INDEX fork_segments_of_holder ON fork_segments (holder_id);
COMMENT ON TABLE fork_segments IS 'Where the shared events of a fork live: those after after_seq, up to up_to_seq, are holder_id''s own. Flat: a holder''s are never looked for elsewhere.';

CREATE TABLE blocks (
    tenant  text COLLATE "C" NOT NULL,
    digest  text COLLATE "C" NOT NULL,
    body    bytea NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, digest)
);
COMMENT ON TABLE blocks IS 'What many events refer to by its SHA-256 in hex: kept once. Now: what models were equipped with (runtime/equipment.py).';
