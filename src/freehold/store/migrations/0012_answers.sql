-- Keys have labels (where their requests may go), and answers are kept for other processes.

ALTER TABLE api_keys ADD COLUMN labels text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN api_keys.labels IS 'What every place must meet to which its requests go.';

CREATE TABLE answers (
    tenant      text COLLATE "C" NOT NULL,
    key         bytea NOT NULL,
    model       text NOT NULL,
    body        bytea NOT NULL,
    kept_at     timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX answers_expired ON answers (expires_at);
COMMENT ON TABLE answers IS 'Answers of models, given again to the same request. key: the digest of all that shapes an answer, and of for whom it is kept.';
