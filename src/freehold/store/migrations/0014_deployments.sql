-- Work that begins by itself. A deployment is a declared resource; here is how far its schedule is, and what its runs came to.

CREATE TABLE deployments (
    tenant       text COLLATE "C" NOT NULL,
    name         text COLLATE "C" NOT NULL,
    agent        text COLLATE "C" NOT NULL,
    schedule     text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    archived_at  timestamptz,
    paused_at    timestamptz,
    done_until   timestamptz NOT NULL,
    queued_at    timestamptz,
    due_at       timestamptz,
    epoch        bigint NOT NULL DEFAULT 0,
    last_run_at  timestamptz,
    PRIMARY KEY (tenant, name)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE deployments IS 'One row a deployment, beside its declaration in resources. What waits for its time costs this row.';
COMMENT ON COLUMN deployments.schedule IS 'As declared, in JSON: where it changes, what the former one missed is forgotten. NULL: only by hand.';
COMMENT ON COLUMN deployments.done_until IS 'Slots up to this one are dealt with.';
COMMENT ON COLUMN deployments.queued_at IS 'When a slot was last seen to wait for the former run to end.';
COMMENT ON COLUMN deployments.due_at IS 'From when on a worker may claim it: its next slot, or the end of a claim. NULL: never (paused, archived, no schedule).';
COMMENT ON COLUMN deployments.epoch IS 'Fencing token: grows with every claim, and with every change from outside.';

CREATE INDEX deployments_due ON deployments (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deployments_due_of_tenant ON deployments (tenant, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deployments_newest ON deployments (tenant, created_at, name);

CREATE TABLE deployment_runs (
    id             text COLLATE "C" PRIMARY KEY,
    tenant         text COLLATE "C" NOT NULL,
    deployment     text COLLATE "C" NOT NULL,
    slot           timestamptz,
    created_at     timestamptz NOT NULL,
    agent          text NOT NULL,
    agent_version  integer NOT NULL,
    session_id     text COLLATE "C",
    error_code     text,
    error_message  text,
    missed_count   integer NOT NULL DEFAULT 0,
    run_by         text NOT NULL,
    key            text COLLATE "C",
    CHECK ((session_id IS NULL) <> (error_code IS NULL))
);
COMMENT ON TABLE deployment_runs IS 'Every run: the session that it began, or why there is none. Never changed.';
COMMENT ON COLUMN deployment_runs.slot IS 'The time at which the schedule said to run. NULL: begun by hand.';
COMMENT ON COLUMN deployment_runs.created_at IS 'When it really began.';
COMMENT ON COLUMN deployment_runs.missed_count IS 'Slots before this one that were passed over.';

-- Each slot gives one run, whoever thinks that it is his.
CREATE UNIQUE INDEX deployment_runs_slots ON deployment_runs (tenant, deployment, slot) WHERE slot IS NOT NULL;
CREATE UNIQUE INDEX deployment_runs_keys ON deployment_runs (tenant, deployment, key) WHERE key IS NOT NULL;
CREATE INDEX deployment_runs_of_tenant ON deployment_runs (tenant, id);
CREATE INDEX deployment_runs_of_deployment ON deployment_runs (tenant, deployment, id);

ALTER TABLE sessions ADD COLUMN deployment text COLLATE "C";
COMMENT ON COLUMN sessions.deployment IS 'The deployment whose run began it.';
CREATE INDEX sessions_of_deployment ON sessions (tenant, deployment, id) WHERE deployment IS NOT NULL;
CREATE INDEX sessions_of_deployment_at_work ON sessions (tenant, deployment)
    WHERE deployment IS NOT NULL AND status IN ('running', 'waiting', 'paused');
