-- How calls went in the last minutes and hours, as each process tells the others. Unlogged: a crash of the database may lose it.

CREATE UNLOGGED TABLE live_figures (
    tenant      text COLLATE "C" NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    minute      bigint NOT NULL,
    process     text COLLATE "C" NOT NULL,
    body        text NOT NULL,
    written_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant, subject, minute, process)
);
CREATE INDEX live_figures_written ON live_figures (written_at);
COMMENT ON TABLE live_figures IS 'Latency, failures and use of capacity by the minute (since 1970), one row a process: rows of one minute are added up.';
