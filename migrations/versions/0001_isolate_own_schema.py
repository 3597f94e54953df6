"""Memsync's own tables, in a schema of their own.

The app's schema gets nothing here. Tables: who each (user, personality) was (`persona_map`), rows
with a decision of their own (`row_archive`), the fill's checkpoint, the outbox, the quarantine;
what the redesign changed; what a run is asked for and what it did; the backups; and when a client
last wrote a user_id.
"""

from alembic import context

revision = "0001"
down_revision = None

STATEMENTS = (
    """CREATE TABLE IF NOT EXISTS memsync.instance (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        id uuid NOT NULL DEFAULT gen_random_uuid())""",
    "INSERT INTO memsync.instance DEFAULT VALUES ON CONFLICT DO NOTHING",
    """CREATE TABLE IF NOT EXISTS memsync.persona_map (
        user_id uuid NOT NULL,
        personality_id uuid NOT NULL,
        persona_id uuid NOT NULL,
        reason text NOT NULL CHECK (reason IN ('override', 'default', 'created')),
        override_persona_id uuid,
        default_persona_id uuid,
        rows_count bigint NOT NULL,
        decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (user_id, personality_id))""",
    """CREATE TABLE IF NOT EXISTS memsync.created_persona (
        user_id uuid PRIMARY KEY,
        persona_id uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp())""",
    """CREATE TABLE IF NOT EXISTS memsync.row_archive (
        history_id uuid PRIMARY KEY,
        user_id uuid,
        persona_id uuid NOT NULL,
        reason text NOT NULL,
        -- Which point is the evidence, as collection/id.
        source text)""",
    """CREATE TABLE IF NOT EXISTS memsync.backfill (
        fill text PRIMARY KEY CHECK (fill IN ('personas', 'users')),
        next_block bigint NOT NULL,
        end_block bigint NOT NULL,
        rows_total bigint NOT NULL,
        rows_done bigint NOT NULL,
        unresolved text NOT NULL CHECK (unresolved IN ('fail', 'create')),
        busy interval NOT NULL,
        started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp())""",
    # What memsync made and dropped of the redesign, and what must not be lost with it.
    """CREATE TABLE IF NOT EXISTS memsync.redesign_change (
        object text PRIMARY KEY,
        change text NOT NULL CHECK (change IN ('made', 'dropped')))""",
    """CREATE TABLE IF NOT EXISTS memsync.column_archive (
        column_name text NOT NULL,
        row_id uuid NOT NULL,
        value jsonb NOT NULL,
        PRIMARY KEY (column_name, row_id))""",
    """CREATE TABLE IF NOT EXISTS memsync.config_fork (
        fork_id uuid PRIMARY KEY,
        config_id uuid NOT NULL,
        window_size int NOT NULL,
        config_row jsonb)""",
    """CREATE TABLE IF NOT EXISTS memsync.orphan_persona (
        persona_id uuid PRIMARY KEY,
        decision text NOT NULL CHECK (decision IN ('derived', 'assigned', 'quarantined')),
        owner_id uuid,
        persona_row jsonb NOT NULL,
        used_by jsonb NOT NULL,
        decided_at timestamptz NOT NULL DEFAULT clock_timestamp())""",
    """CREATE TABLE IF NOT EXISTS memsync.runs (
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
        note text)""",
    # What is asked of the run whose session is `pid`; each run makes the row its own.
    """CREATE TABLE IF NOT EXISTS memsync.control (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        pid int NOT NULL,
        wanted text NOT NULL CHECK (wanted IN ('run', 'pause', 'cancel')),
        who text NOT NULL DEFAULT session_user,
        asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        heard_at timestamptz)""",
    """CREATE TABLE IF NOT EXISTS memsync.backup (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        file text NOT NULL,
        bytes bigint NOT NULL,
        sha256 text NOT NULL,
        tables text[] NOT NULL,
        history_rows bigint NOT NULL,
        snapshot text NOT NULL,
        taken_at timestamptz NOT NULL,
        who text NOT NULL DEFAULT session_user)""",
    # When a client last named user_id in an INSERT, in epoch seconds. A row of a table would be
    # held by each writer until it commits; a sequence is not. Not called: watched since then.
    "CREATE SEQUENCE IF NOT EXISTS memsync.user_id_written_at",
    """CREATE TABLE IF NOT EXISTS memsync.outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        point_id uuid NOT NULL,
        enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        attempts int NOT NULL DEFAULT 0,
        dead boolean NOT NULL DEFAULT false,
        last_error text)""",
    "CREATE INDEX IF NOT EXISTS outbox_point_id_idx ON memsync.outbox (point_id)",
    """CREATE TABLE IF NOT EXISTS memsync.quarantine (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        plan_id uuid NOT NULL,
        collection text NOT NULL,
        point_id text NOT NULL,
        state text NOT NULL,
        -- json, not jsonb: it keeps the text as it is, \\u0000 too.
        payload json NOT NULL,
        vector real[],
        reason text NOT NULL,
        quarantined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        UNIQUE (plan_id, collection, point_id, state))""",
    # The same digest as model.digests.memory_digest: each field after its length in bytes.
    """CREATE OR REPLACE FUNCTION memsync.memory_digest(
        point_id uuid, persona_id uuid, personality_id uuid, channel_id text,
        created_at_ms bigint, content text)
    RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT encode(sha256(string_agg(int4send(octet_length(f)) || f, ''::bytea ORDER BY n)),
                      'hex')
        FROM unnest(ARRAY[
            'memsync-1'::bytea,
            convert_to(point_id::text, 'UTF8'),
            convert_to(persona_id::text, 'UTF8'),
            convert_to(personality_id::text, 'UTF8'),
            convert_to(channel_id, 'UTF8'),
            convert_to(created_at_ms::text, 'UTF8'),
            convert_to(content, 'UTF8')]) WITH ORDINALITY AS fields(f, n)
    $$""",
)


def upgrade() -> None:
    """Create what is missing."""
    context.config.attributes["ddl"].run(*STATEMENTS, table="memsync.instance")


def downgrade() -> None:
    """Leave the tables: they are the way back's memory."""
