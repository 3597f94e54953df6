-- memsync's own tables, in a schema of their own. The app's schema gets nothing here.

-- name: create_instance
-- The id of this database, which a saved plan names.
CREATE TABLE IF NOT EXISTS memsync.instance (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id uuid NOT NULL DEFAULT gen_random_uuid());

-- name: name_instance
-- Gives the database its id, once.
INSERT INTO memsync.instance DEFAULT VALUES ON CONFLICT DO NOTHING;

-- name: create_persona_map
-- The persona that was decided for each (user, personality), and what the settings said then.
CREATE TABLE IF NOT EXISTS memsync.persona_map (
    user_id uuid NOT NULL,
    personality_id uuid NOT NULL,
    persona_id uuid NOT NULL,
    reason text NOT NULL CHECK (reason IN ('override', 'default', 'created')),
    override_persona_id uuid,
    default_persona_id uuid,
    rows_count bigint NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, personality_id));

-- name: create_created_persona
-- Default personas that memsync made for users who had none. One that a rollback withdrew gets its
-- id again.
CREATE TABLE IF NOT EXISTS memsync.created_persona (
    user_id uuid PRIMARY KEY,
    persona_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    withdrawn boolean NOT NULL DEFAULT false);

-- name: create_row_archive
-- Messages with a decision of their own. `source` is the point that is the evidence, as
-- collection/id.
CREATE TABLE IF NOT EXISTS memsync.row_archive (
    history_id uuid PRIMARY KEY,
    user_id uuid,
    persona_id uuid NOT NULL,
    reason text NOT NULL,
    source text);

-- name: create_backfill
-- The checkpoint of each fill.
CREATE TABLE IF NOT EXISTS memsync.backfill (
    fill text PRIMARY KEY CHECK (fill IN ('personas', 'users')),
    next_block bigint NOT NULL,
    end_block bigint NOT NULL,
    rows_total bigint NOT NULL,
    rows_done bigint NOT NULL,
    unresolved text NOT NULL CHECK (unresolved IN ('fail', 'create')),
    busy interval NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- name: create_redesign_change
-- The objects that memsync created and dropped in the redesign. A rollback undoes nothing else.
CREATE TABLE IF NOT EXISTS memsync.redesign_change (
    object text PRIMARY KEY,
    change text NOT NULL CHECK (change IN ('created', 'dropped')));

-- name: create_history_change
-- The objects of the history that memsync created and dropped. A rollback undoes nothing else.
CREATE TABLE IF NOT EXISTS memsync.history_change (
    object text PRIMARY KEY,
    change text NOT NULL CHECK (change IN ('created', 'dropped')));

-- name: create_column_archive
-- Values that only a dropped column held.
CREATE TABLE IF NOT EXISTS memsync.column_archive (
    column_name text NOT NULL,
    row_id uuid NOT NULL,
    value jsonb NOT NULL,
    PRIMARY KEY (column_name, row_id));

-- name: create_config_fork
-- Configs that were copied because their personalities had different context windows.
CREATE TABLE IF NOT EXISTS memsync.config_fork (
    fork_id uuid PRIMARY KEY,
    config_id uuid NOT NULL,
    window_size int NOT NULL,
    config_row jsonb);

-- name: create_orphan_persona
-- Personas that had no owner: the decision, the row as it was, and the users who used it.
CREATE TABLE IF NOT EXISTS memsync.orphan_persona (
    persona_id uuid PRIMARY KEY,
    decision text NOT NULL CHECK (decision IN ('derived', 'assigned', 'quarantined')),
    owner_id uuid,
    persona_row jsonb NOT NULL,
    used_by jsonb NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- name: create_runs
-- The record of runs.
CREATE TABLE IF NOT EXISTS memsync.runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    verb text NOT NULL CHECK (verb IN ('run', 'rollback', 'finalize')),
    phase text NOT NULL,
    who text NOT NULL DEFAULT session_user,
    memsync_version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    outcome text,
    user_id_dropped boolean NOT NULL DEFAULT false,
    rows_filled bigint NOT NULL DEFAULT 0,
    lock_waits int NOT NULL DEFAULT 0,
    waited_s float NOT NULL DEFAULT 0,
    gates_passed boolean NOT NULL DEFAULT false,
    note text,
    options json);

-- name: create_control
-- The request to the run whose session is `pid`. Each run takes the one row over.
CREATE TABLE IF NOT EXISTS memsync.control (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    pid int NOT NULL,
    wanted text NOT NULL CHECK (wanted IN ('run', 'pause', 'cancel')),
    who text NOT NULL DEFAULT session_user,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    heard_at timestamptz);

-- name: create_backup
-- Backups that memsync made and read back.
CREATE TABLE IF NOT EXISTS memsync.backup (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    file text NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    tables text[] NOT NULL,
    history_rows bigint NOT NULL,
    snapshot text NOT NULL,
    taken_at timestamptz NOT NULL,
    who text NOT NULL DEFAULT session_user);

-- name: create_user_id_written_at
-- When a client last named user_id in an INSERT, in epoch seconds. This is a sequence, because each
-- writer would lock the row of a table until it commits. While is_called is false, the value is the
-- time since when writes are watched.
CREATE SEQUENCE IF NOT EXISTS memsync.user_id_written_at;

-- name: create_outbox
-- Intents to write a memory, until the relay has carried them out.
CREATE TABLE IF NOT EXISTS memsync.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    point_id uuid NOT NULL,
    enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts int NOT NULL DEFAULT 0,
    dead boolean NOT NULL DEFAULT false,
    last_error text);

-- name: create_outbox_point_id_idx
-- Finds whether a memory is still to be written.
CREATE INDEX IF NOT EXISTS outbox_point_id_idx ON memsync.outbox (point_id);

-- name: create_quarantine
-- Points that were removed or overwritten, as they were. The payload is json, not jsonb, because
-- json keeps the text as it is, \u0000 too. The vector is NULL where only the payload was
-- overwritten. The digest covers both.
CREATE TABLE IF NOT EXISTS memsync.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_id uuid NOT NULL,
    collection text NOT NULL,
    point_id text NOT NULL,
    state text NOT NULL,
    payload json NOT NULL,
    vector real[],
    digest text NOT NULL,
    reason text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (plan_id, collection, point_id, state));

-- name: create_layout
-- Where memories lie, once a command that writes has decided it. See stores/ltm/record.py.
CREATE TABLE IF NOT EXISTS memsync.layout (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    layout text NOT NULL CHECK (layout IN ('per-persona', 'shared')),
    why text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- name: add_layout_under_way
-- The change of layout that was begun and has not ended. See reconcile/halfway.py.
ALTER TABLE memsync.layout
    ADD COLUMN IF NOT EXISTS under_way text
    CHECK (under_way IN ('copying', 'retiring', 'returning'));

-- name: grant_layout
-- Lets every role of the schema see where memories lie: the library and each audit ask.
GRANT SELECT ON memsync.layout TO PUBLIC;

-- name: create_memories
-- The ledger: the memories that memsync wrote, or that an operator adopted. See
-- stores/ltm/ledger.py. anchor_id and source, the digest of the exchange, are NULL where no row is
-- known. stored is the digest of the memory as it stood in the vector store. leaving: the repair that
-- is at work is about to remove it; without one it means nothing. removed: a repair has removed it.
CREATE TABLE IF NOT EXISTS memsync.memories (
    collection text NOT NULL,
    point_id text NOT NULL,
    anchor_id uuid,
    persona_id uuid,
    personality_id uuid,
    channel_id text,
    created_at_ms bigint,
    source bytea,
    stored bytea NOT NULL,
    state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'archived')),
    leaving boolean NOT NULL DEFAULT false,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (collection, point_id));

-- name: add_memories_removed
-- The column came after the first build that made the table.
ALTER TABLE memsync.memories ADD COLUMN IF NOT EXISTS removed boolean NOT NULL DEFAULT false;

-- name: create_memories_anchor_id_idx
-- Finds what the ledger says of an exchange's memory.
CREATE INDEX IF NOT EXISTS memories_anchor_id_idx ON memsync.memories (anchor_id);

-- name: create_mark
-- How many batches of memories Postgres has settled; the vector store has the same number. See
-- stores/ltm/marks.py. archived_at is when the ledger was last compared with the rows.
CREATE TABLE IF NOT EXISTS memsync.mark (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    settled bigint NOT NULL DEFAULT 0,
    is_set boolean NOT NULL DEFAULT false,
    rewound_at timestamptz,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- name: create_repair
-- The runs of `reconcile apply`. A run has the id of its plan; `target` are the stores that it was
-- for. Of its actions the journal has those that it carried out; `done_before` counts those whose
-- result stood already, by other hands, and `set_aside` those that could not be done.
CREATE TABLE IF NOT EXISTS memsync.repair (
    run_id uuid PRIMARY KEY,
    target json NOT NULL,
    actions int NOT NULL,
    who text NOT NULL DEFAULT session_user,
    memsync_version text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- name: add_repair_counts
-- The columns came after the first build that made the table.
ALTER TABLE memsync.repair
    ADD COLUMN IF NOT EXISTS done_before int NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS set_aside int NOT NULL DEFAULT 0;

-- name: create_journal
-- What a run does to each point, in its order, so that it can be undone. A row is an intent, which
-- is committed before the vector store is written, until `done_at`. A state is the digest of a
-- payload, NULL where there is no point. The point that it had before is in the quarantine. Where
-- the action is `create`, the run made the collection, and `point_id` is empty.
CREATE TABLE IF NOT EXISTS memsync.journal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL REFERENCES memsync.repair (run_id) ON DELETE CASCADE,
    collection text NOT NULL,
    point_id text NOT NULL,
    action text NOT NULL CHECK (action IN ('create', 'copy', 'put', 'patch', 'remove')),
    reason text NOT NULL,
    state_before text,
    state_after text,
    intended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz,
    undone_at timestamptz,
    UNIQUE (run_id, collection, point_id));

-- name: add_journal_source
-- The point that a `copy` was made of, and whether a point was removed because another one has its
-- memory. The columns came after the first build that made the table.
ALTER TABLE memsync.journal
    ADD COLUMN IF NOT EXISTS source_collection text,
    ADD COLUMN IF NOT EXISTS source_id text,
    ADD COLUMN IF NOT EXISTS is_replaced boolean NOT NULL DEFAULT false;

-- name: add_journal_noted_before
-- What memsync.memories said of the point before: its entry, and those that gave way to the new one.
-- The column came after the first build that made the table; NULL: it is not known.
ALTER TABLE memsync.journal ADD COLUMN IF NOT EXISTS noted_before jsonb;

-- name: create_retired
-- Collections that `reconcile layout set shared --retire` removes. Their points are in the
-- quarantine, under the run's id as plan_id. points is counted before a collection is dropped.
CREATE TABLE IF NOT EXISTS memsync.retired (
    run_id uuid NOT NULL,
    collection text NOT NULL,
    dims int NOT NULL,
    indexes json NOT NULL,
    points bigint,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dropped_at timestamptz,
    restored_at timestamptz,
    PRIMARY KEY (run_id, collection));

-- name: grant_retired
-- Lets every role of the schema see which collections wait in the quarantine.
GRANT SELECT ON memsync.retired TO PUBLIC;

-- name: create_acknowledged
-- Findings of the audit that an operator knows of, with the digest of what was seen of each. See
-- reconcile/baseline.py. The reason is the operator's own text.
CREATE TABLE IF NOT EXISTS memsync.acknowledged (
    id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    code text NOT NULL,
    store text NOT NULL,
    key text NOT NULL,
    state bytea NOT NULL,
    reason text NOT NULL,
    who text NOT NULL DEFAULT session_user,
    acknowledged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (code, store, key));

-- name: create_audits
-- The audits that `memsync check --record` kept. See reconcile/recorded.py. counts has the faults by
-- code.
CREATE TABLE IF NOT EXISTS memsync.audits (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begun_at timestamptz NOT NULL,
    seconds float NOT NULL,
    layout text NOT NULL,
    complete boolean NOT NULL,
    counts jsonb NOT NULL,
    acknowledged bigint NOT NULL,
    settling bigint NOT NULL,
    rows_checked bigint NOT NULL,
    points_checked bigint NOT NULL,
    memsync_version text NOT NULL,
    who text NOT NULL DEFAULT session_user);

-- name: grant_audits
-- Lets every role of the schema see how earlier audits went: they are numbers.
GRANT SELECT ON memsync.audits TO PUBLIC;

-- name: drop_first_memory_digest
-- An earlier build's digest, which took the two texts of a memory as one.
DROP FUNCTION IF EXISTS memsync.memory_digest(uuid, uuid, uuid, text, bigint, text);

-- name: create_memory_digest
-- The digest of a memory, as model.digests.memory_digest computes it in Python: SHA-256 over the
-- fields, each after its length in bytes. It is STABLE because the server writes such a function
-- into the statement that calls it, and an IMMUTABLE one with convert_to it does not: that takes
-- four times as long.
CREATE OR REPLACE FUNCTION memsync.memory_digest(
    point_id uuid, persona_id uuid, personality_id uuid, channel_id text,
    created_at_ms bigint, user_text text, assistant_text text)
RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT encode(sha256(
        int4send(9) || 'memsync-2'::bytea
        || int4send(36) || convert_to(point_id::text, 'UTF8')
        || int4send(36) || convert_to(persona_id::text, 'UTF8')
        || int4send(36) || convert_to(personality_id::text, 'UTF8')
        || int4send(octet_length(convert_to(channel_id, 'UTF8'))) || convert_to(channel_id, 'UTF8')
        || int4send(length(created_at_ms::text)) || convert_to(created_at_ms::text, 'UTF8')
        || int4send(octet_length(convert_to(user_text, 'UTF8'))) || convert_to(user_text, 'UTF8')
        || int4send(octet_length(convert_to(assistant_text, 'UTF8')))
        || convert_to(assistant_text, 'UTF8')), 'hex')
$$;
