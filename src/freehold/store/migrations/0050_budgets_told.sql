-- What webhooks are told of budgets, once for each size; and how a session's run is found.

CREATE INDEX deployment_runs_of_session ON deployment_runs (session_id) WHERE session_id IS NOT NULL;

ALTER TABLE allowances
    ADD COLUMN warned_size     numeric(38, 0),
    ADD COLUMN exhausted_size  numeric(38, 0);
COMMENT ON COLUMN allowances.warned_size IS 'The size of which webhooks were told that its threshold was reached: once for each size.';
COMMENT ON COLUMN allowances.exhausted_size IS 'The size of which webhooks were told that a call found too little left: once for each size.';
