\echo 'back: drops persona_id with its indexes, key and trigger; the tables of the redesign stay'
DO $do$
BEGIN
    IF to_regclass('memsync.runs') IS NULL THEN
        RAISE EXCEPTION 'there is nothing to take back: no migration was begun here';
    END IF;
    IF NOT pg_temp.has_users() OR pg_temp.is_not_null('conversation_history', 'persona_id')
       OR pg_temp.is_valid('conversation_history', '{{catalog:PERSONA_CHECK}}') IS NOT NULL
       OR pg_temp.is_valid('conversation_history', '{{catalog:USER_KEY}}') IS NULL
       OR EXISTS (SELECT FROM memsync.redesign_change
                  WHERE change = 'dropped' OR object = 'personas.owner_id') THEN
        RAISE EXCEPTION 'contract was begun: this script takes back only the phases before it'
            USING HINT = 'memsync migrate rollback takes contract back, also in part.';
    END IF;
    PERFORM pg_temp.begin_phase('backfill', 'rollback');
    CALL pg_temp.run('conversation_history', ARRAY[
        '{{query:drop_persona_key}}']);
END $do$;

-- Clients read threads by user again.
SELECT pg_temp.index_work('conversation_history', '{{catalog:USER_INDEX}}',
    $q${{query:create_user_index}}$q$)
\gexec

SELECT '{{query:drop_retrieval_index}}',
       '{{query:drop_persona_index}}'
\gexec

DO $do$
DECLARE
    _fill CONSTANT text := 'personas';
BEGIN
    PERFORM pg_temp.end_phase(), pg_temp.begin_phase('expand', 'rollback');
    COMMIT;
    IF pg_temp.has_column('conversation_history', 'persona_id') THEN
        -- Personas that the map would not give are archived, so that going forward again gives
        -- each row the persona that it has now.
        EXECUTE $q${{query:archive_personas}}$q$;
        COMMIT;
        {{query:forget_fill}};
        COMMIT;
    END IF;
    CALL pg_temp.run('conversation_history', ARRAY[
        '{{query:drop_identity_trigger}}',
        '{{query:drop_user_write_trigger}}',
        '{{query:drop_persona_id}}',
        '{{query:drop_record_user_write}}',
        '{{query:drop_sync_identity}}',
        '{{query:drop_create_default_persona}}',
        '{{query:drop_persona_views}}']);
    PERFORM pg_temp.end_phase();
END $do$;
