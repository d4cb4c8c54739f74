-- Batches of model calls (Anthropic's Message Batches): a row a batch, a row a request. `at` times of a batch are the server's clock,
-- those of leases the database's own.

CREATE TABLE message_batches (
    id                   text COLLATE "C" PRIMARY KEY,
    tenant               text COLLATE "C" NOT NULL,
    created_by           text NOT NULL,
    status               text COLLATE "C" NOT NULL DEFAULT 'in_progress',
    headers              jsonb NOT NULL,
    idempotency_key      text COLLATE "C",
    created_at           timestamptz NOT NULL,
    expires_at           timestamptz NOT NULL,
    cancel_initiated_at  timestamptz,
    ended_at             timestamptz,
    archived_at          timestamptz,
    served_at            timestamptz NOT NULL DEFAULT now(),
    request_count        integer NOT NULL,
    succeeded_count      integer NOT NULL DEFAULT 0,
    errored_count        integer NOT NULL DEFAULT 0,
    canceled_count       integer NOT NULL DEFAULT 0,
    expired_count        integer NOT NULL DEFAULT 0,
    CHECK (succeeded_count + errored_count + canceled_count + expired_count <= request_count)
) WITH (fillfactor = 70);
COMMENT ON TABLE message_batches IS 'One row a batch. Its counts change in the statement that writes the results which they count.';
COMMENT ON COLUMN message_batches.status IS 'in_progress, canceling or ended.';
COMMENT ON COLUMN message_batches.served_at IS 'When requests of it were last claimed: the batch that waits longest goes first.';
COMMENT ON COLUMN message_batches.archived_at IS 'Since when its results are gone.';

CREATE INDEX message_batches_of_tenant ON message_batches (tenant, id);
CREATE UNIQUE INDEX message_batches_keys ON message_batches (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX message_batches_open ON message_batches (served_at) WHERE status <> 'ended';
CREATE INDEX message_batches_kept ON message_batches (created_at) WHERE status = 'ended' AND archived_at IS NULL;

CREATE TABLE message_batch_requests (
    batch_id   text COLLATE "C" NOT NULL,
    number     integer NOT NULL,
    tenant     text COLLATE "C" NOT NULL,
    custom_id  text COLLATE "C" NOT NULL,
    params     bytea,
    outcome    text COLLATE "C",
    result     bytea,
    owner      text COLLATE "C",
    epoch      bigint NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT now(),
    failures   integer NOT NULL DEFAULT 0,
    PRIMARY KEY (batch_id, number),
    UNIQUE (batch_id, custom_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
-- As for events: compressing costs the server more than writing.
ALTER TABLE message_batch_requests ALTER COLUMN params SET STORAGE EXTERNAL, ALTER COLUMN result SET STORAGE EXTERNAL;
COMMENT ON TABLE message_batch_requests IS 'The requests of batches, each with its one result. No foreign key: a batch is deleted with its requests in one statement.';
COMMENT ON COLUMN message_batch_requests.number IS 'Its place in the batch, from 0.';
COMMENT ON COLUMN message_batch_requests.params IS 'The request as UTF-8 JSON; NULL once there is a result.';
COMMENT ON COLUMN message_batch_requests.outcome IS 'succeeded, errored, canceled or expired; NULL: no result yet. Never changes again.';
COMMENT ON COLUMN message_batch_requests.epoch IS 'Fencing token: grows with every claim. A result must name the current one.';
COMMENT ON COLUMN message_batch_requests.due_at IS 'It may be claimed from this time on: when its lease runs out, or its pause between two calls.';

CREATE INDEX message_batch_requests_due ON message_batch_requests (batch_id, due_at, number) WHERE outcome IS NULL;
