CREATE OR REPLACE FUNCTION pg_temp.summary() RETURNS TABLE (item text, value text)
LANGUAGE plpgsql AS $fn$
DECLARE
    _counts record;
    _wrong bigint;
BEGIN
    RETURN QUERY SELECT 'migration', CASE
        WHEN pg_temp.finished() THEN 'finished'
        WHEN pg_temp.has_column('conversation_history', 'user_id')
            THEN 'not finished: user_id is still there'
        ELSE 'not finished' END;
    IF pg_temp.has_column('conversation_history', 'persona_id') THEN
        {{query:verify_counts}} INTO _counts;
        SELECT _total INTO _wrong FROM pg_temp.wrong_rows();
        RETURN QUERY VALUES
            ('messages', _counts.rows_total::text),
            ('personas used', _counts.unique_personas::text),
            ('persona_id NULL', _counts.null_persona_ids::text),
            ('persona_id unknown', _counts.unknown_persona_ids::text),
            ('persona_id wrong', coalesce(_wrong::text,
                'none when user_id was dropped; nothing is left to recompute it from'));
    END IF;
    IF to_regclass('memsync.persona_map') IS NOT NULL THEN
        RETURN QUERY SELECT 'messages decided by ' || m.reason, sum(m.rows_count)::text
                     FROM memsync.persona_map m GROUP BY m.reason ORDER BY m.reason;
    END IF;
    RETURN QUERY SELECT 'seconds', round(extract(epoch FROM clock_timestamp()
        - current_setting('memsync.began')::timestamptz), 1)::text;
END $fn$;

SELECT item, value FROM pg_temp.summary();
