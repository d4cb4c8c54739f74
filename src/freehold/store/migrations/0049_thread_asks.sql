-- A subagent that waits for somebody to act says so to the session at the top, whose waits then name it.

CREATE FUNCTION session_asks_itself(waits jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$
    SELECT coalesce(jsonb_path_exists(waits, '$.calls[*].awaits.type ? (@ == "approval" || @ == "client")'), false)
$$;
COMMENT ON FUNCTION session_asks_itself IS 'Whether somebody has to act on a call of the session''s own before it goes on, by its waits.';

CREATE OR REPLACE FUNCTION session_asks(waits jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$
    SELECT session_asks_itself(waits) OR coalesce(jsonb_path_exists(waits, '$.threads[*]'), false)
$$;
COMMENT ON FUNCTION session_asks IS 'Whether somebody has to act before the session goes on, on its own calls or on a subagent''s, by its waits.';

-- A subagent's requires_action is told when it begins to wait, with its thread; its session's status follows.
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
        IF session_asks_itself(NEW.waits) THEN
            PERFORM webhook_event(NEW.tenant, 'session.requires_action', NEW.id);
        END IF;
    END IF;
    RETURN NULL;
END
$$;
