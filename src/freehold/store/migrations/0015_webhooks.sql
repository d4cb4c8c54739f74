-- What happens is told to webhooks: what to tell, and to whom, is written by the transaction in which it happens.

CREATE TABLE webhook_endpoints (
    tenant           text COLLATE "C" NOT NULL,
    name             text COLLATE "C" NOT NULL,
    uid              text NOT NULL DEFAULT gen_random_uuid()::text,
    url              text NOT NULL,
    events           text[] NOT NULL,
    secret_number    integer NOT NULL DEFAULT 1,
    previous_until   timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    last_success_at  timestamptz,
    failing_since    timestamptz,
    disabled_at      timestamptz,
    disabled_reason  text,
    PRIMARY KEY (tenant, name)
) WITH (fillfactor = 80);
COMMENT ON TABLE webhook_endpoints IS 'One row a webhook, beside its declaration in resources: how it does.';
COMMENT ON COLUMN webhook_endpoints.uid IS 'Its secrets are made of this, their number and the pepper; a webhook that is declared anew has other ones.';
COMMENT ON COLUMN webhook_endpoints.previous_until IS 'Until then what is sent is signed with the secret before, too.';
COMMENT ON COLUMN webhook_endpoints.failing_since IS 'When the first delivery failed since one last succeeded.';
COMMENT ON COLUMN webhook_endpoints.disabled_at IS 'From then on it is told nothing, and nothing is kept for it.';

CREATE TABLE webhook_deliveries (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant       text COLLATE "C" NOT NULL,
    endpoint     text COLLATE "C" NOT NULL,
    event_id     text COLLATE "C" NOT NULL,
    type         text COLLATE "C" NOT NULL,
    object_id    text COLLATE "C" NOT NULL,
    thread_id    text COLLATE "C",
    at           timestamptz NOT NULL DEFAULT now(),
    status       text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts     integer NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL DEFAULT now(),
    owner        text COLLATE "C",
    last_at      timestamptz,
    last_status  integer,
    last_error   text,
    settled_at   timestamptz,
    FOREIGN KEY (tenant, endpoint) REFERENCES webhook_endpoints (tenant, name) ON DELETE CASCADE
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE webhook_deliveries IS 'One row for each event and webhook that is told of it. The event itself says only what happened to what: it is looked up by its id.';
COMMENT ON COLUMN webhook_deliveries.due_at IS 'From when on it may be claimed: at once, after a pause, or when the claim of a process that died runs out.';
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (tenant, endpoint, due_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_held ON webhook_deliveries (due_at) WHERE status = 'pending' AND owner IS NOT NULL;
CREATE INDEX webhook_deliveries_next ON webhook_deliveries (due_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_of_endpoint ON webhook_deliveries (tenant, endpoint, seq);
CREATE INDEX webhook_deliveries_settled ON webhook_deliveries (settled_at) WHERE settled_at IS NOT NULL;

CREATE FUNCTION webhook_event(of_tenant text, event_type text, of_object text, of_thread text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO webhook_deliveries (tenant, endpoint, event_id, type, object_id, thread_id)
    SELECT e.tenant, e.name, n.id, event_type, of_object, of_thread
    FROM webhook_endpoints e CROSS JOIN (SELECT 'wevt_' || replace(gen_random_uuid()::text, '-', '') AS id OFFSET 0) AS n
    WHERE e.tenant = of_tenant AND e.disabled_at IS NULL
      AND (event_type = ANY (e.events) OR split_part(event_type, '.', 1) || '.*' = ANY (e.events));
    IF FOUND THEN
        PERFORM pg_notify('freehold_webhooks', '');
    END IF;
END
$$;
COMMENT ON FUNCTION webhook_event IS 'Tells the webhooks of a tenant that are for such events. Call it in the transaction in which it happens.';

-- A session's thread events are its session's: of all those above it, the one that works for nobody.
CREATE FUNCTION webhook_root(of_session text) RETURNS text
LANGUAGE sql STABLE
AS $$
    WITH RECURSIVE above AS (
        SELECT s.id, s.parent_id FROM sessions s WHERE s.id = of_session
        UNION ALL
        SELECT s.id, s.parent_id FROM above a JOIN sessions s ON s.id = a.parent_id
    )
    SELECT coalesce((SELECT a.id FROM above a WHERE a.parent_id IS NULL LIMIT 1), of_session)
$$;

CREATE FUNCTION webhook_session_began() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (SELECT FROM webhook_endpoints e WHERE e.tenant = NEW.tenant AND e.disabled_at IS NULL) THEN
        IF NEW.parent_id IS NOT NULL THEN
            PERFORM webhook_event(NEW.tenant, 'session.thread_created', webhook_root(NEW.parent_id), 'sthr_' || substr(NEW.id, 6));
        ELSE
            PERFORM webhook_event(NEW.tenant, 'session.created', NEW.id);
            IF NEW.status = 'running' THEN
                PERFORM webhook_event(NEW.tenant, 'session.status_run_started', NEW.id);
            END IF;
        END IF;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION session_asks_itself(waits jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$
    SELECT coalesce(jsonb_path_exists(waits, '$.calls[*].awaits.type ? (@ == "approval" || @ == "client")'), false)
$$;
COMMENT ON FUNCTION session_asks_itself IS 'Whether somebody has to act on a call of the session''s own before it goes on, by its waits.';

CREATE FUNCTION session_asks(waits jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$
    SELECT session_asks_itself(waits) OR coalesce(jsonb_path_exists(waits, '$.threads[*]'), false)
$$;
COMMENT ON FUNCTION session_asks IS 'Whether somebody has to act before the session goes on, on its own calls or on a subagent''s, by its waits.';

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

-- A subagent's requires_action is told when it begins to wait, with its thread; its session's status follows.
CREATE FUNCTION webhook_session_moved() RETURNS trigger
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

CREATE FUNCTION webhook_session_gone() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM webhook_event(NEW.tenant, 'session.archived', NEW.id);
    ELSIF OLD.parent_id IS NULL THEN
        PERFORM webhook_event(OLD.tenant, 'session.deleted', OLD.id);
    END IF;
    RETURN NULL;
END
$$;

-- Sessions are written to all the time: they are watched once the first webhook is declared, and an installation without pays nothing.
-- Of agents' sessions alone; the column that says so comes with the other kinds (0046_responses_on_the_log.sql).
CREATE FUNCTION watch_sessions_for_webhooks() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('freehold.webhooks'));
    IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = 'sessions'::regclass AND t.tgname = 'webhook_began') THEN
        RETURN;
    END IF;
    CREATE TRIGGER webhook_began AFTER INSERT ON sessions FOR EACH ROW
        WHEN (NEW.kind = 'agent') EXECUTE FUNCTION webhook_session_began();
    CREATE TRIGGER webhook_moved AFTER UPDATE ON sessions FOR EACH ROW
        WHEN (OLD.status IS DISTINCT FROM NEW.status AND NEW.kind = 'agent') EXECUTE FUNCTION webhook_session_moved();
    CREATE TRIGGER webhook_archived AFTER UPDATE OF archived_at ON sessions FOR EACH ROW
        WHEN (OLD.archived_at IS NULL AND NEW.archived_at IS NOT NULL AND NEW.kind = 'agent') EXECUTE FUNCTION webhook_session_gone();
    CREATE TRIGGER webhook_deleted AFTER DELETE ON sessions FOR EACH ROW
        WHEN (OLD.kind = 'agent') EXECUTE FUNCTION webhook_session_gone();
END
$$;

CREATE FUNCTION webhook_declared() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM webhook_event(OLD.tenant, OLD.kind || '.deleted', OLD.name);
    ELSIF TG_OP = 'INSERT' THEN
        PERFORM webhook_event(NEW.tenant, NEW.kind || '.created', NEW.name);
    ELSIF NEW.archived AND NOT OLD.archived THEN
        PERFORM webhook_event(NEW.tenant, NEW.kind || '.archived', NEW.name);
    ELSIF NEW.version <> OLD.version THEN
        PERFORM webhook_event(NEW.tenant, NEW.kind || '.updated', NEW.name);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER webhook_declared AFTER INSERT OR UPDATE ON resources FOR EACH ROW
    WHEN (NEW.kind IN ('agent', 'environment', 'deployment')) EXECUTE FUNCTION webhook_declared();
CREATE TRIGGER webhook_undeclared AFTER DELETE ON resources FOR EACH ROW
    WHEN (OLD.kind IN ('agent', 'environment', 'deployment')) EXECUTE FUNCTION webhook_declared();

CREATE FUNCTION webhook_deployment() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_TABLE_NAME = 'deployments' THEN
        PERFORM webhook_event(NEW.tenant, CASE WHEN NEW.paused_at IS NULL THEN 'deployment.unpaused' ELSE 'deployment.paused' END, NEW.name);
    ELSE
        PERFORM webhook_event(NEW.tenant, CASE WHEN NEW.session_id IS NULL THEN 'deployment_run.failed' ELSE 'deployment_run.started' END, NEW.id);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER webhook_paused AFTER UPDATE ON deployments FOR EACH ROW
    WHEN ((OLD.paused_at IS NULL) <> (NEW.paused_at IS NULL)) EXECUTE FUNCTION webhook_deployment();
CREATE TRIGGER webhook_run AFTER INSERT ON deployment_runs FOR EACH ROW EXECUTE FUNCTION webhook_deployment();
