-- History that grows with what is new in it: large texts are kept once, snapshots shorten the way back, and what is over is deleted.

ALTER TABLE blocks ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE blocks IS 'What many events refer to by its SHA-256 in hex: kept once a tenant. Large texts of events (as JSON has them, see block_uses), and what models were equipped with (runtime/equipment.py).';

CREATE TABLE block_uses (
    session_id  text COLLATE "C" NOT NULL,
    digest      text COLLATE "C" NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    PRIMARY KEY (session_id, digest),
    -- Whoever takes up a block that is being deleted waits, and then writes it anew: neither ever wins over the other unseen.
    FOREIGN KEY (tenant, digest) REFERENCES blocks (tenant, digest)
);
CREATE INDEX block_uses_of_block ON block_uses (tenant, digest);
COMMENT ON TABLE block_uses IS 'Which sessions'' events and snapshots name which blocks. A block that had a use and has none left is deleted.';

CREATE TABLE snapshots (
    session_id  text COLLATE "C" PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,
    format      text COLLATE "C" NOT NULL,
    body        bytea NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE snapshots IS 'What a session''s log said up to event seq: the newest one only. Can be deleted at any time; then the whole log is read.';
COMMENT ON COLUMN snapshots.format IS 'Of the state that is in it (core/session_state.py): another one than the reader''s is not read.';

CREATE TABLE session_deletions (
    session_id  text COLLATE "C" PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE session_deletions IS 'Sessions that are gone for everybody and whose events, blocks and results are still to be swept.';

ALTER TABLE sessions ADD COLUMN archived_at timestamptz;
COMMENT ON COLUMN sessions.archived_at IS 'Since when it is only read. NULL: not archived.';
CREATE INDEX sessions_settled ON sessions (updated_at) WHERE status IN ('idle', 'cancelled');
