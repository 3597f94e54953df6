\echo 'back: persona_id, its indexes, key and trigger go; the tables of the redesign stay, in step'
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
        RAISE EXCEPTION 'contract was begun: this script takes back what comes before it'
            USING HINT = 'memsync migrate rollback takes contract back, also in part.';
    END IF;
    PERFORM pg_temp.begin_phase('backfill', 'rollback');
    CALL pg_temp.run('conversation_history', ARRAY[
        'ALTER TABLE conversation_history DROP CONSTRAINT IF EXISTS {{catalog:PERSONA_KEY}}']);
END $do$;

-- Threads are read by user again.
SELECT pg_temp.index_work('conversation_history', '{{catalog:USER_INDEX}}',
    $q${{catalog:BUILD_USER_INDEX}}$q$)
\gexec

SELECT 'DROP INDEX CONCURRENTLY IF EXISTS {{catalog:RETRIEVAL_INDEX}}',
       'DROP INDEX CONCURRENTLY IF EXISTS {{catalog:PERSONA_INDEX}}'
\gexec

DO $do$
DECLARE
    _fill CONSTANT text := 'personas';
BEGIN
    PERFORM pg_temp.end_phase(), pg_temp.begin_phase('expand', 'rollback');
    COMMIT;
    IF pg_temp.has_column('conversation_history', 'persona_id') THEN
        -- What the map does not tell is kept, so that going forward again gives each row the
        -- persona that it has now.
        EXECUTE $q${{query:archive_personas}}$q$;
        COMMIT;
        {{query:forget_fill}};
        COMMIT;
    END IF;
    CALL pg_temp.run('conversation_history', ARRAY[
        {{bridge_remove_persona}}]);
    PERFORM pg_temp.end_phase();
END $do$;
