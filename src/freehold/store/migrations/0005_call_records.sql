-- Records say for whom, by which way and at whose price; days are what bills are added up from.

ALTER TABLE call_records
    ADD COLUMN key_id        text,
    ADD COLUMN organisation  text,
    ADD COLUMN team          text,
    ADD COLUMN user_name     text,
    ADD COLUMN labels        jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN route         text,
    ADD COLUMN reason        text,
    ADD COLUMN attempts      integer NOT NULL DEFAULT 1,
    ADD COLUMN region        text,
    ADD COLUMN cached        text,
    ADD COLUMN price_source  text NOT NULL DEFAULT '';

-- Records come nearly in the order of their time, so one entry for each 128 pages finds a month at no cost to writing.
CREATE INDEX call_records_at ON call_records USING brin (at) WITH (autosummarize = on);

CREATE TABLE call_days (
    tenant                 text COLLATE "C" NOT NULL,
    day                    date NOT NULL,
    key                    bytea NOT NULL,
    organisation           text NOT NULL,
    team                   text NOT NULL,
    user_name              text NOT NULL,
    principal              text NOT NULL,
    agent                  text NOT NULL,
    route                  text NOT NULL,
    provider               text NOT NULL,
    model                  text NOT NULL,
    region                 text NOT NULL,
    outcome                text NOT NULL,
    cached                 text NOT NULL,
    price_source           text NOT NULL,
    currency               text NOT NULL,
    priced                 boolean NOT NULL,
    estimated              boolean NOT NULL,
    calls                  bigint NOT NULL,
    cost_pico              numeric(38, 0) NOT NULL,
    input_tokens           numeric(38, 0) NOT NULL,
    output_tokens          numeric(38, 0) NOT NULL,
    cache_read_tokens      numeric(38, 0) NOT NULL,
    cache_write_tokens     numeric(38, 0) NOT NULL,
    cache_write_1h_tokens  numeric(38, 0) NOT NULL,
    reasoning_tokens       numeric(38, 0) NOT NULL,
    input_audio_tokens     numeric(38, 0) NOT NULL,
    output_audio_tokens    numeric(38, 0) NOT NULL,
    PRIMARY KEY (tenant, day, key)
) WITH (fillfactor = 70);
COMMENT ON TABLE call_days IS 'Sums of call_records by day (UTC) and by what bills are cut by, written in the statement that writes the records: the two never differ. key: SHA-256 of the texts and flags from organisation to estimated. An empty text is none.';

INSERT INTO call_days
SELECT tenant, day,
       sha256(convert_to(ROW(organisation, team, user_name, principal, agent, route, provider, model, region, outcome, cached,
                             price_source, currency, priced, estimated)::text, 'UTF8')),
       organisation, team, user_name, principal, agent, route, provider, model, region, outcome, cached, price_source, currency,
       priced, estimated, calls, cost_pico, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
       cache_write_1h_tokens, reasoning_tokens, input_audio_tokens, output_audio_tokens
FROM (
    SELECT tenant, (at AT TIME ZONE 'UTC')::date AS day, '' AS organisation, '' AS team, '' AS user_name, principal,
           coalesce(agent, '') AS agent, '' AS route, provider, model, '' AS region, outcome, '' AS cached, '' AS price_source,
           currency, priced, estimated, count(*) AS calls, sum(cost_pico) AS cost_pico, sum(input_tokens) AS input_tokens,
           sum(output_tokens) AS output_tokens, sum(cache_read_tokens) AS cache_read_tokens,
           sum(cache_write_tokens) AS cache_write_tokens, sum(cache_write_1h_tokens) AS cache_write_1h_tokens,
           sum(reasoning_tokens) AS reasoning_tokens, sum(input_audio_tokens) AS input_audio_tokens,
           sum(output_audio_tokens) AS output_audio_tokens
    FROM call_records
    GROUP BY 1, 2, principal, agent, provider, model, outcome, currency, priced, estimated
) AS earlier;
