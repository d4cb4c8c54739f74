-- Webhooks are told how the runs of deployments ended, of sessions that reached their budget, and of budgets.

CREATE INDEX deployment_runs_of_session ON deployment_runs (session_id) WHERE session_id IS NOT NULL;

ALTER TABLE allowances
    ADD COLUMN warned_size     numeric(38, 0),
    ADD COLUMN exhausted_size  numeric(38, 0);
COMMENT ON COLUMN allowances.warned_size IS 'The size of which webhooks were told that its threshold was reached: once for each size.';
COMMENT ON COLUMN allowances.exhausted_size IS 'The size of which webhooks were told that a call found too little left: once for each size.';

-- Bodies are JSON as core/session.py has it, written without spaces; what people and models say in it is escaped, so no text looks like a field.
-- A run is over when the first turn of its session is.
CREATE FUNCTION webhook_turn_ended(of_session sessions) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    ended record;
    run text;
BEGIN
    SELECT e.seq, position('"outcome":"completed"'::bytea IN e.body) > 0 AS completed,
           position('"limit":"cost_max_usd"'::bytea IN e.body) > 0 OR position('"limit":"session_cost_max_usd"'::bytea IN e.body) > 0 AS spent
    INTO ended FROM events e
    WHERE e.session_id = of_session.id AND e.seq <= of_session.version AND e.type = 'turn_finished' ORDER BY e.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF ended.spent THEN
        PERFORM webhook_event(of_session.tenant, 'session.budget_reached', of_session.id);
    END IF;
    IF of_session.deployment IS NULL OR EXISTS (
        SELECT FROM events e WHERE e.session_id = of_session.id AND e.seq < ended.seq AND e.type = 'turn_finished'
    ) THEN
        RETURN;
    END IF;
    SELECT r.id INTO run FROM deployment_runs r WHERE r.session_id = of_session.id;
    IF FOUND THEN
        PERFORM webhook_event(
            of_session.tenant, CASE WHEN ended.completed THEN 'deployment_run.succeeded' ELSE 'deployment_run.failed' END, run
        );
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION webhook_session_moved() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    root text;
    thread text;
BEGIN
    IF NOT EXISTS (SELECT FROM webhook_endpoints e WHERE e.tenant = NEW.tenant AND e.disabled_at IS NULL) THEN
        RETURN NULL;
    END IF;
    IF NEW.parent_id IS NOT NULL THEN
        root := webhook_root(NEW.parent_id);
        thread := 'sthr_' || substr(NEW.id, 6);
        IF NEW.status = 'idle' THEN
            PERFORM webhook_event(NEW.tenant, 'session.thread_idled', root, thread);
        ELSIF NEW.status = 'cancelled' THEN
            PERFORM webhook_event(NEW.tenant, 'session.thread_terminated', root, thread);
        ELSIF NEW.status = 'waiting' AND session_asks(NEW.waits) THEN
            PERFORM webhook_event(NEW.tenant, 'session.requires_action', root, thread);
        END IF;
        RETURN NULL;
    END IF;
    IF NEW.status = 'running' AND (OLD.status <> 'waiting' OR session_asks(OLD.waits)) THEN
        PERFORM webhook_event(NEW.tenant, 'session.status_run_started', NEW.id);
    ELSIF NEW.status = 'idle' THEN
        PERFORM webhook_event(NEW.tenant, 'session.status_idled', NEW.id);
        PERFORM webhook_event(NEW.tenant, 'session.idled', NEW.id);
        PERFORM webhook_turn_ended(NEW);
    ELSIF NEW.status = 'cancelled' THEN
        PERFORM webhook_event(NEW.tenant, 'session.status_terminated', NEW.id);
        PERFORM webhook_turn_ended(NEW);
    ELSIF NEW.status = 'waiting' AND session_asks(NEW.waits) THEN
        PERFORM webhook_event(NEW.tenant, 'session.status_idled', NEW.id);
        IF session_asks_itself(NEW.waits) THEN
            PERFORM webhook_event(NEW.tenant, 'session.requires_action', NEW.id);
        END IF;
    END IF;
    RETURN NULL;
END
$$;
