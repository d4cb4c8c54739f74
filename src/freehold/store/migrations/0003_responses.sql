CREATE TABLE responses (
    id               text COLLATE "C" PRIMARY KEY,
    tenant           text COLLATE "C" NOT NULL,
    created_by       text NOT NULL,
    status           text COLLATE "C" NOT NULL,
    previous_id      text COLLATE "C",
    conversation_id  text COLLATE "C",
    streamed         boolean NOT NULL DEFAULT false,
    created_at       timestamptz NOT NULL DEFAULT now(),
    head             bytea NOT NULL,
    input            bytea NOT NULL,
    output           bytea NOT NULL,
    request          bytea,
    item_ids         text[] COLLATE "C",
    attempts         integer NOT NULL DEFAULT 0,
    epoch            bigint NOT NULL DEFAULT 0,
    owner            text COLLATE "C",
    due_at           timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE responses ALTER COLUMN head SET STORAGE EXTERNAL;
ALTER TABLE responses ALTER COLUMN input SET STORAGE EXTERNAL;
ALTER TABLE responses ALTER COLUMN output SET STORAGE EXTERNAL;
COMMENT ON TABLE responses IS 'Answers of the Responses API that are kept: one row each, with what is new in it. The conversation is the chain of previous_id.';
COMMENT ON COLUMN responses.head IS 'The response object as UTF-8 JSON, without its output and as it stood when it began or ended; its status is the column''s.';
COMMENT ON COLUMN responses.input IS 'The input items that came with this request, a JSON array; earlier ones are in the rows before it.';
COMMENT ON COLUMN responses.request IS 'What to ask the model, without the input; only of those in the background, and only until they have ended.';
COMMENT ON COLUMN responses.item_ids IS 'Ids of the output''s items: clients may send a reference to one in its place.';
COMMENT ON COLUMN responses.epoch IS 'Fencing token: grows with every claim and release. Who writes under an older one is too late.';

CREATE INDEX responses_after ON responses (previous_id) WHERE previous_id IS NOT NULL;
CREATE INDEX responses_due ON responses (due_at) WHERE status IN ('queued', 'in_progress');
CREATE INDEX responses_items ON responses USING gin (item_ids);
CREATE INDEX responses_created ON responses (created_at);

CREATE TABLE response_events (
    response_id  text COLLATE "C" NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    seq          bigint NOT NULL,
    count        integer NOT NULL CHECK (count > 0),
    body         bytea NOT NULL,
    PRIMARY KEY (response_id, seq)
);
ALTER TABLE response_events ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE response_events IS 'Streams of responses in the background, in runs: `count` server-sent events from number `seq` on, as they go to clients.';

CREATE TABLE conversations (
    id          text COLLATE "C" PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    metadata    bytea NOT NULL,
    items_ever  bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE conversations IS 'Conversations that clients of the Responses API leave with us; one row each.';
COMMENT ON COLUMN conversations.items_ever IS 'How many items were ever added: the seq of the last one. Who adds some locks the row, so their order is certain.';

CREATE TABLE conversation_items (
    conversation_id  text COLLATE "C" NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    seq              bigint NOT NULL,
    item_id          text COLLATE "C" NOT NULL,
    body             bytea NOT NULL,
    PRIMARY KEY (conversation_id, seq)
);
ALTER TABLE conversation_items ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX conversation_items_by_id ON conversation_items (conversation_id, item_id);
COMMENT ON TABLE conversation_items IS 'What was said in a conversation, in order. Ids are the vendors'' or ours, and those of vendors need not be unique.';
