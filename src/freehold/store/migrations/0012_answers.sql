-- Keys have labels (where their requests may go), and answers are kept for other processes.

ALTER TABLE api_keys ADD COLUMN labels text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN api_keys.labels IS 'What every place must meet to which its requests go.';

ALTER TABLE call_records ADD COLUMN saved_pico bigint NOT NULL DEFAULT 0;
ALTER TABLE call_days ADD COLUMN saved_pico numeric(38, 0) NOT NULL DEFAULT 0;
COMMENT ON COLUMN call_records.saved_pico IS 'What the call would have cost, had not an earlier answer been given again.';

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

-- Where the database has pgvector, and lets us use it; else no answer is found by its meaning. It may be in any schema.
DO $$
DECLARE
    place text;
BEGIN
    CREATE EXTENSION IF NOT EXISTS vector;
    SELECT quote_ident(n.nspname) INTO place
    FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    EXECUTE format(
        'CREATE FUNCTION as_vector(given text) RETURNS %1$s.vector LANGUAGE sql IMMUTABLE STRICT AS %2$L',
        place, format('SELECT given::%s.vector', place)
    );
    EXECUTE format(
        'CREATE FUNCTION unlikeness(one %1$s.vector, other %1$s.vector) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT AS %2$L',
        place, format('SELECT one OPERATOR(%s.<=>) other', place)
    );
    EXECUTE format(
        'CREATE TABLE answer_likenesses (
            tenant      text COLLATE "C" NOT NULL,
            key         bytea NOT NULL,
            context     bytea NOT NULL,
            dimensions  integer NOT NULL,
            vector      %s.vector NOT NULL,
            PRIMARY KEY (tenant, key),
            FOREIGN KEY (tenant, key) REFERENCES answers (tenant, key) ON DELETE CASCADE
        )',
        place
    );
    CREATE INDEX answer_likenesses_of_context ON answer_likenesses (tenant, context);
    COMMENT ON TABLE answer_likenesses IS 'What the last text of a request means. context: the digest of all the rest of it, and of for whom its answer is kept.';
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
    RAISE NOTICE 'pgvector cannot be used here: no answer is found by its meaning';
END
$$;
