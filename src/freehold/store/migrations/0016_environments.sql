-- Sessions have what their agents don't say: an environment, other instructions, tools of their client's, a budget.

ALTER TABLE sessions ADD COLUMN setup jsonb;
COMMENT ON COLUMN sessions.setup IS 'What the session has beyond its agent''s declaration, as its first event says it (SessionSetup). NULL: nothing.';
CREATE INDEX sessions_of_environment ON sessions (tenant, (setup ->> 'environment')) WHERE setup ->> 'environment' IS NOT NULL;
