-- How many runs of a tool there may be at once, everywhere together; and what is said to a session that is busy.

CREATE TABLE tool_limits (
    tenant           text COLLATE "C" NOT NULL,
    tool             text COLLATE "C" NOT NULL,
    concurrency_max  integer NOT NULL,
    PRIMARY KEY (tenant, tool)
);
COMMENT ON TABLE tool_limits IS 'How many runs of a tool there may be at once, where its current declaration says so (concurrency_max).';

CREATE TABLE tool_places (
    session_id    text COLLATE "C" NOT NULL,
    call_id       text COLLATE "C" NOT NULL,
    tenant        text COLLATE "C" NOT NULL,
    tool          text COLLATE "C" NOT NULL,
    queued_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_at      timestamptz,
    called_until  timestamptz,
    PRIMARY KEY (session_id, call_id)
);
CREATE INDEX tool_places_of_tool ON tool_places (tenant, tool, queued_at);
COMMENT ON TABLE tool_places IS 'Calls of tools with a limit: those that run (taken_at), and those that wait for a place, the longest first. A place is its session''s, whichever worker carries it: when a worker dies, the next one to have the session goes on in its place.';
COMMENT ON COLUMN tool_places.called_until IS 'Until then a place is kept for it, and its session is due.';

-- Gives the free places of a tool to those that wait: at once to the calls of the session that asks, by calling the others, whose sessions
-- are then due. Sessions take turns, those first that have the fewest places. One at a time for a tool, by an advisory lock that
-- whoever writes a tool's rows has taken before; sessions that are being written to are left for the next time.
CREATE FUNCTION serve_tool_places(of_tenant text, of_tool text, asker text) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    called_for CONSTANT interval := interval '10 seconds';
    ahead_max CONSTANT integer := 64;
    free integer;
    called integer;
BEGIN
    SELECT coalesce((SELECT l.concurrency_max FROM tool_limits l WHERE l.tenant = of_tenant AND l.tool = of_tool), 1000000) - count(*)
    INTO free FROM tool_places p
    WHERE p.tenant = of_tenant AND p.tool = of_tool AND (p.taken_at IS NOT NULL OR p.called_until > clock_timestamp());
    UPDATE tool_places p SET taken_at = clock_timestamp(), called_until = NULL
    WHERE p.session_id = asker AND p.tenant = of_tenant AND p.tool = of_tool AND p.called_until > clock_timestamp();
    IF free <= 0 THEN
        RETURN;
    END IF;
    WITH waiting AS (
        SELECT p.session_id, p.call_id, p.queued_at FROM tool_places p JOIN sessions s ON s.id = p.session_id
        WHERE p.tenant = of_tenant AND p.tool = of_tool AND p.taken_at IS NULL
          AND (p.session_id = asker OR (p.called_until IS NULL AND s.status = 'waiting'))
        ORDER BY p.queued_at LIMIT free + ahead_max
    ), having_some AS (
        SELECT p.session_id, count(*) AS count FROM tool_places p
        WHERE p.tenant = of_tenant AND p.tool = of_tool AND p.taken_at IS NOT NULL GROUP BY p.session_id
    ), chosen AS (
        SELECT w.session_id, w.call_id FROM waiting w LEFT JOIN having_some h ON h.session_id = w.session_id
        ORDER BY coalesce(h.count, 0) + row_number() OVER (PARTITION BY w.session_id ORDER BY w.queued_at), w.queued_at
        LIMIT free
    ), reachable AS (
        SELECT s.id FROM sessions s WHERE s.id IN (SELECT c.session_id FROM chosen c WHERE c.session_id <> asker)
        FOR UPDATE SKIP LOCKED
    ), woken AS (
        UPDATE sessions s SET wake_at = now(), due_at = CASE WHEN s.owner IS NULL THEN now() ELSE s.due_at END
        FROM reachable r WHERE s.id = r.id AND s.status = 'waiting'
        RETURNING s.id
    ), served AS (
        UPDATE tool_places p SET
            taken_at = CASE WHEN p.session_id = asker THEN clock_timestamp() END,
            called_until = CASE WHEN p.session_id <> asker THEN clock_timestamp() + called_for END
        FROM chosen c
        WHERE p.session_id = c.session_id AND p.call_id = c.call_id AND (p.session_id = asker OR p.session_id IN (SELECT w.id FROM woken w))
        RETURNING p.session_id
    )
    SELECT count(*) INTO called FROM served v WHERE v.session_id <> asker;
    IF called > 0 THEN
        PERFORM pg_notify('freehold_work', '');
    END IF;
END
$$;

-- Which of the calls have a place now; the others wait for one, in the order in which they first came.
CREATE FUNCTION take_tool_places(of_tenant text, of_session text, calls text[], tools text[]) RETURNS SETOF text
LANGUAGE plpgsql
AS $$
DECLARE
    wanted text;
BEGIN
    FOR wanted IN SELECT DISTINCT t FROM unnest(tools) AS t ORDER BY t LOOP
        PERFORM pg_advisory_xact_lock(hashtext('freehold.tool_places'), hashtext(of_tenant || '/' || wanted));
        INSERT INTO tool_places (session_id, call_id, tenant, tool)
        SELECT of_session, c.call, of_tenant, wanted FROM unnest(calls, tools) AS c (call, tool) WHERE c.tool = wanted
        ON CONFLICT DO NOTHING;
        PERFORM serve_tool_places(of_tenant, wanted, of_session);
    END LOOP;
    RETURN QUERY
    SELECT p.call_id FROM tool_places p WHERE p.session_id = of_session AND p.call_id = ANY (calls) AND p.taken_at IS NOT NULL;
END
$$;

-- Gives back the session's places, and leaves the queues, but for these calls.
CREATE FUNCTION keep_tool_places(of_tenant text, of_session text, calls text[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    left_tool text;
BEGIN
    FOR left_tool IN
        SELECT DISTINCT p.tool FROM tool_places p WHERE p.session_id = of_session AND p.call_id <> ALL (calls) ORDER BY p.tool
    LOOP
        PERFORM pg_advisory_xact_lock(hashtext('freehold.tool_places'), hashtext(of_tenant || '/' || left_tool));
        DELETE FROM tool_places p WHERE p.session_id = of_session AND p.tool = left_tool AND p.call_id <> ALL (calls);
        PERFORM serve_tool_places(of_tenant, left_tool, '');
    END LOOP;
END
$$;

-- For a session that has just been put to rest: a place may have become free between its asking and its resting.
CREATE FUNCTION look_for_tool_places(of_tenant text, of_session text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    wanted text;
BEGIN
    FOR wanted IN SELECT DISTINCT p.tool FROM tool_places p WHERE p.session_id = of_session AND p.taken_at IS NULL ORDER BY p.tool LOOP
        PERFORM pg_advisory_xact_lock(hashtext('freehold.tool_places'), hashtext(of_tenant || '/' || wanted));
        PERFORM serve_tool_places(of_tenant, wanted, '');
    END LOOP;
END
$$;

-- What no call of the above sees: limits that were raised, the called whose sessions nobody claimed in time (they go to the end of
-- the queue), and what belongs to sessions that are no longer in a turn. One process does it at a time.
CREATE FUNCTION look_after_tool_places() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    queue record;
BEGIN
    IF NOT EXISTS (SELECT FROM tool_places p WHERE p.taken_at IS NULL)
       OR NOT pg_try_advisory_xact_lock(hashtext('freehold.tool_places_looked_after')) THEN
        RETURN;
    END IF;
    FOR queue IN SELECT DISTINCT p.tenant, p.tool FROM tool_places p WHERE p.taken_at IS NULL ORDER BY 1, 2 LOOP
        PERFORM pg_advisory_xact_lock(hashtext('freehold.tool_places'), hashtext(queue.tenant || '/' || queue.tool));
        DELETE FROM tool_places p
        WHERE p.tenant = queue.tenant AND p.tool = queue.tool
          AND NOT EXISTS (SELECT FROM sessions s WHERE s.id = p.session_id AND s.status IN ('running', 'waiting'));
        UPDATE tool_places p SET called_until = NULL, queued_at = clock_timestamp()
        WHERE p.tenant = queue.tenant AND p.tool = queue.tool AND p.called_until <= clock_timestamp();
        PERFORM serve_tool_places(queue.tenant, queue.tool, '');
    END LOOP;
END
$$;

ALTER TABLE sessions ADD COLUMN when_busy text COLLATE "C";
COMMENT ON COLUMN sessions.when_busy IS 'What becomes of input that comes while it is busy, as its first event says it: queue (NULL), interrupt or reject.';
