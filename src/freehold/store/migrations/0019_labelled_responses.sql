-- What clients of the Responses API leave with us may go, when it is gone on with, only where its labels say.

ALTER TABLE responses ADD COLUMN labels text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN responses.labels IS 'Of the request and of all that it built on (gateway/residency.py).';
ALTER TABLE conversations ADD COLUMN labels text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN conversations.labels IS 'Of the request that created it: what is labelled otherwise is not added.';
