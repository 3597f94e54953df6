DO $do$
DECLARE
    _rows bigint;
    _personas bigint;
    _nulls bigint;
    _unknown bigint;
    _decided text;
BEGIN
    IF NOT pg_temp.has_column('conversation_history', 'persona_id') THEN
        RAISE NOTICE 'summary: conversation_history has no persona_id yet';
        RETURN;
    END IF;
    SELECT rows_total, unique_personas, null_persona_ids, unknown_persona_ids
    INTO _rows, _personas, _nulls, _unknown FROM ({{query:verify_counts}}) c;
END $do$;
