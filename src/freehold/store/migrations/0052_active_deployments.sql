-- How many deployments a tenant has is counted when another is declared.

CREATE INDEX deployments_active ON deployments (tenant) WHERE archived_at IS NULL;
