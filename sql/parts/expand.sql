\echo 'expand: persona_id, and the trigger that gives each row the id that it lacks'
DO $do$
BEGIN
    PERFORM pg_temp.require(pg_temp.redesign_stands(), 'expand');
    PERFORM pg_temp.begin_phase('expand');
    IF NOT pg_temp.has_column('conversation_history', 'persona_id') THEN
        CALL pg_temp.run('conversation_history',
            ARRAY['ALTER TABLE conversation_history ADD COLUMN persona_id uuid']);
    END IF;
    IF pg_temp.has_column('conversation_history', 'user_id') THEN
        {{bridge_build}}
    END IF;
    PERFORM pg_temp.end_phase();
END $do$;
