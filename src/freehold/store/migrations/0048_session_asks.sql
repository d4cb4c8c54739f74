-- Whether a session that waits has somebody to act is asked for by lists, too, and not for webhooks alone.

ALTER FUNCTION webhook_asks(jsonb) RENAME TO session_asks;
COMMENT ON FUNCTION session_asks IS 'Whether somebody has to act before the session goes on, by its waits.';

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
    ELSIF NEW.status = 'cancelled' THEN
        PERFORM webhook_event(NEW.tenant, 'session.status_terminated', NEW.id);
    ELSIF NEW.status = 'waiting' AND session_asks(NEW.waits) THEN
        PERFORM webhook_event(NEW.tenant, 'session.status_idled', NEW.id);
        PERFORM webhook_event(NEW.tenant, 'session.requires_action', NEW.id);
    END IF;
    RETURN NULL;
END
$$;
