-- Which sessions a worker gets next. A queue is one agent of one tenant; tenants take turns, and within a tenant its agents do.

DROP INDEX sessions_due;
CREATE INDEX sessions_due ON sessions (due_at) WHERE status IN ('running', 'waiting') AND due_at < 'infinity';
CREATE INDEX sessions_queued ON sessions (tenant, agent, due_at) WHERE status IN ('running', 'waiting') AND due_at < 'infinity';
CREATE INDEX sessions_held ON sessions (tenant, agent, due_at) WHERE owner IS NOT NULL;

CREATE TABLE session_limits (
    tenant       text COLLATE "C" NOT NULL,
    agent        text COLLATE "C" NOT NULL,
    running_max  integer NOT NULL,
    PRIMARY KEY (tenant, agent)
);
COMMENT ON TABLE session_limits IS 'How many sessions of an agent may be carried forward at once, where its current declaration says so (limits.sessions_running_max).';

CREATE TABLE claim_turn (
    tenant  text COLLATE "C" NOT NULL,
    agent   text COLLATE "C" NOT NULL
) WITH (fillfactor = 10);
INSERT INTO claim_turn VALUES ('', '');
COMMENT ON TABLE claim_turn IS 'One row: the queue that was looked at last. The next claim goes on behind it.';

-- Claims sessions, at most `wanted`; fewer do not mean that no more are due, only none does. One call is one statement to the
-- client, so that a worker that is frozen between two thoughts holds no lock; inside, each statement sees what the claims before it
-- have committed, so that limits are exact.
--
-- Where no more are due than wanted and nothing is limited, all that are due are taken. Else it is the turn of the tenant that has
-- the fewest sessions carried forward, over and over; within a tenant its agents take turns, each its longest waiting first. Looked at
-- are the queues of those that wait longest, and the next 32 of all queues, found by hopping over the index; so a claim costs the
-- same however many sessions and tenants there are, and each queue's turn comes. Rows that an append has locked are left out: it
-- tells the workers when it is done.
CREATE FUNCTION claim_sessions(worker text, wanted integer, lease interval, tenant_max integer)
RETURNS TABLE (session_id text, of_tenant text, of_epoch bigint, waited_since timestamptz)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    queues_max CONSTANT integer := 32;
    due integer;
    tenants text[];
    agents text[];
    last_tenant text;
    last_agent text;
    hops integer;
    rounds integer := 0;
BEGIN
    PERFORM FROM sessions s WHERE s.status IN ('running', 'waiting') AND s.due_at < 'infinity' AND s.due_at <= now() LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('freehold.claims'));
    SELECT count(*), array_agg(o.tenant), array_agg(o.agent) INTO due, tenants, agents FROM (
        SELECT s.tenant, s.agent FROM sessions s WHERE s.status IN ('running', 'waiting') AND s.due_at < 'infinity' AND s.due_at <= now()
        ORDER BY s.due_at LIMIT wanted + 1
    ) AS o;

    IF due <= wanted AND tenant_max IS NULL AND NOT EXISTS (SELECT FROM session_limits) THEN
        RETURN QUERY
        WITH chosen AS (
            SELECT s.id, s.due_at FROM sessions s WHERE s.status IN ('running', 'waiting') AND s.due_at < 'infinity' AND s.due_at <= now()
            ORDER BY s.due_at LIMIT wanted
            FOR UPDATE SKIP LOCKED
        )
        UPDATE sessions s SET owner = worker, epoch = s.epoch + 1, due_at = now() + lease
        FROM chosen WHERE s.id = chosen.id
        RETURNING s.id, s.tenant, s.epoch, chosen.due_at;
        RETURN;
    END IF;

    SELECT t.tenant, t.agent INTO last_tenant, last_agent FROM claim_turn t;
    LOOP
        WITH RECURSIVE hop AS (
            (SELECT s.tenant, s.agent, 1 AS number FROM sessions s
             WHERE s.status IN ('running', 'waiting') AND s.due_at < 'infinity' AND (s.tenant, s.agent) > (last_tenant, last_agent)
             ORDER BY s.tenant, s.agent, s.due_at LIMIT 1)
            UNION ALL
            SELECT n.tenant, n.agent, h.number + 1 FROM hop h CROSS JOIN LATERAL (
                SELECT s.tenant, s.agent FROM sessions s
                WHERE s.status IN ('running', 'waiting') AND s.due_at < 'infinity' AND (s.tenant, s.agent) > (h.tenant, h.agent)
                ORDER BY s.tenant, s.agent, s.due_at LIMIT 1
            ) AS n
            WHERE h.number < queues_max
        )
        SELECT count(*), tenants || array_agg(h.tenant ORDER BY h.number), agents || array_agg(h.agent ORDER BY h.number)
        INTO hops, tenants, agents FROM hop h;
        IF hops < queues_max THEN
            last_tenant := ''; last_agent := ''; rounds := rounds + 1;
        ELSE
            last_tenant := tenants[cardinality(tenants)]; last_agent := agents[cardinality(agents)];
        END IF;

        RETURN QUERY
        WITH queues AS (
            SELECT DISTINCT q.tenant, q.agent FROM unnest(tenants, agents) AS q (tenant, agent)
        ), held AS MATERIALIZED (
            SELECT s.tenant, s.agent, count(*) AS count FROM sessions s
            WHERE s.owner IS NOT NULL AND s.due_at > now() AND s.tenant = ANY (tenants) GROUP BY s.tenant, s.agent
        ), of_tenants AS (
            SELECT h.tenant, sum(h.count)::bigint AS count FROM held h GROUP BY h.tenant
        ), open AS (
            SELECT q.tenant, q.agent, coalesce(t.count, 0) AS tenant_held, coalesce(h.count, 0) AS agent_held,
                   least(wanted, l.running_max - coalesce(h.count, 0)) AS room,
                   least(wanted, tenant_max - coalesce(t.count, 0)) AS tenant_room
            FROM queues q
            LEFT JOIN session_limits l ON l.tenant = q.tenant AND l.agent = q.agent
            LEFT JOIN held h ON h.tenant = q.tenant AND h.agent = q.agent
            LEFT JOIN of_tenants t ON t.tenant = q.tenant
        ), candidates AS (
            SELECT o.tenant, o.tenant_held, o.tenant_room, c.id, c.due_at,
                   row_number() OVER (PARTITION BY o.tenant ORDER BY o.agent_held + c.place, c.due_at) AS turn
            FROM open o CROSS JOIN LATERAL (
                SELECT s.id, s.due_at, row_number() OVER (ORDER BY s.due_at) AS place FROM sessions s
                WHERE s.status IN ('running', 'waiting') AND s.due_at < 'infinity' AND s.tenant = o.tenant AND s.agent = o.agent AND s.due_at <= now()
                ORDER BY s.due_at LIMIT o.room
            ) AS c
            WHERE o.room > 0 AND o.tenant_room > 0
        ), chosen AS (
            SELECT c.id, c.due_at FROM candidates c WHERE c.turn <= c.tenant_room
            ORDER BY c.tenant_held + c.turn, c.due_at LIMIT wanted
        ), locked AS (
            SELECT s.id, c.due_at FROM chosen c JOIN sessions s ON s.id = c.id FOR UPDATE OF s SKIP LOCKED
        )
        UPDATE sessions s SET owner = worker, epoch = s.epoch + 1, due_at = now() + lease
        FROM locked WHERE s.id = locked.id
        RETURNING s.id, s.tenant, s.epoch, locked.due_at;
        EXIT WHEN FOUND OR rounds = 2;
        tenants := '{}'; agents := '{}';
    END LOOP;
    UPDATE claim_turn SET tenant = last_tenant, agent = last_agent;
END
$$;
COMMENT ON FUNCTION claim_sessions IS 'Leases for a worker. Called by the workers alone.';
