-- Keys have a team and a user; limits and budgets are kept as allowances, of which processes lease slices.

ALTER TABLE api_keys
    ADD COLUMN team       text,
    ADD COLUMN user_name  text;

ALTER TABLE call_records ADD COLUMN leases text;
COMMENT ON COLUMN call_records.leases IS 'The leases of budgets that the call was paid from, joined by commas.';

CREATE TABLE allowances (
    id          text COLLATE "C" PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    measure     text NOT NULL,
    name        text NOT NULL,
    subject     text NOT NULL,
    label       text NOT NULL,
    base        numeric(38, 0) NOT NULL DEFAULT 0,
    ends_at     timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX allowances_ended ON allowances (ends_at) WHERE ends_at IS NOT NULL;
COMMENT ON TABLE allowances IS 'What one subject may use of one limit or budget, in one window (label). base: what was spent by leases that ended, and before there was any.';

CREATE TABLE allowance_leases (
    id          text COLLATE "C" PRIMARY KEY,
    allowance   text COLLATE "C" NOT NULL REFERENCES allowances (id) ON DELETE CASCADE,
    tenant      text COLLATE "C" NOT NULL,
    owner       text COLLATE "C" NOT NULL,
    spool       text COLLATE "C" NOT NULL,
    granted     numeric(38, 0) NOT NULL,
    recorded    numeric(38, 0) NOT NULL DEFAULT 0,
    turn        bigint NOT NULL,
    expires_at  timestamptz
) WITH (fillfactor = 70);
CREATE INDEX allowance_leases_of_allowance ON allowance_leases (allowance);
CREATE INDEX allowance_leases_of_spool ON allowance_leases (spool, owner);
COMMENT ON TABLE allowance_leases IS 'Slices of allowances, one a process. granted: all that it ever had, less what it gave back; recorded: what records say was spent of it, added in the statement that writes them. Leases of money have no end of their own: they end when their owner is gone and its spool (the folder, and the owner in it) is empty.';
