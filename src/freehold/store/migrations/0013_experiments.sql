-- Calls say in which arm of an experiment they were; canaries have a place that all processes share; answers get scores.

ALTER TABLE call_records ADD COLUMN arm text;
COMMENT ON COLUMN call_records.arm IS 'Of the experiment of its route, the arm that the call was in.';
CREATE INDEX call_records_arms ON call_records (tenant, route, at) WHERE arm IS NOT NULL;

CREATE TABLE canaries (
    tenant    text COLLATE "C" NOT NULL,
    route     text COLLATE "C" NOT NULL,
    declared  text NOT NULL,
    status    text NOT NULL CHECK (status IN ('running', 'done', 'stepped_back')),
    step      integer NOT NULL,
    since     timestamptz NOT NULL,
    version   bigint NOT NULL,
    PRIMARY KEY (tenant, route)
);
COMMENT ON TABLE canaries IS 'How far each canary is. declared: what it was when it began, as JSON; where that is changed it begins anew.';

CREATE TABLE canary_steps (
    tenant   text COLLATE "C" NOT NULL,
    route    text COLLATE "C" NOT NULL,
    version  bigint NOT NULL,
    at       timestamptz NOT NULL,
    status   text NOT NULL,
    percent  double precision NOT NULL,
    reason   text NOT NULL,
    PRIMARY KEY (tenant, route, version)
);
COMMENT ON TABLE canary_steps IS 'Every step that a canary took, and why.';

CREATE TABLE feedback (
    tenant     text COLLATE "C" NOT NULL,
    call_id    text COLLATE "C" NOT NULL,
    name       text NOT NULL,
    score      double precision NOT NULL,
    comment    text NOT NULL,
    principal  text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, call_id, name)
);
COMMENT ON TABLE feedback IS 'What somebody thinks of the answer to a call.';
