-- How long sessions are kept, by class, and what is kept of those that are gone: what people decided, and how many went.

CREATE TABLE approval_evidence (
    session_id  text COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    agent       text COLLATE "C" NOT NULL,
    at          timestamptz NOT NULL,
    body        bytea NOT NULL,
    keep_until  timestamptz NOT NULL,
    PRIMARY KEY (session_id, seq)
);
CREATE INDEX approval_evidence_of_tenant ON approval_evidence (tenant, session_id, seq);
CREATE INDEX approval_evidence_over ON approval_evidence (keep_until);
COMMENT ON TABLE approval_evidence IS 'Of deleted sessions: what people were asked, what they decided, and what ran on it, as the events of the log (whole, without blocks).';

CREATE TABLE retention_runs (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant    text COLLATE "C" NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    policy    text COLLATE "C" NOT NULL,
    by        text COLLATE "C" NOT NULL,
    deleted   integer NOT NULL,
    ended     integer NOT NULL,
    evidence  integer NOT NULL
);
CREATE INDEX retention_runs_of_tenant ON retention_runs (tenant, id);
COMMENT ON TABLE retention_runs IS 'How many sessions a policy (empty: the configuration) let go of or ended, each time that it was any. Never deleted.';
