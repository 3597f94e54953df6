\echo 'verify: checks that every message has a persona, the right one if that can be recomputed'
DO $do$
BEGIN
    IF NOT pg_temp.has_column('conversation_history', 'persona_id') THEN
        RAISE EXCEPTION 'conversation_history has no persona_id yet'
            USING HINT = 'Run the steps before this one.';
    END IF;
    PERFORM pg_temp.prove();
    IF pg_temp.is_valid('conversation_history', '{{catalog:PERSONA_KEY}}') IS NOT TRUE THEN
        RAISE EXCEPTION 'the foreign key {{catalog:PERSONA_KEY}} is missing or not validated'
            USING HINT = 'Run the backfill again.';
    END IF;
    IF pg_temp.has_column('conversation_history', 'user_id') AND NOT pg_temp.has_users() THEN
        RAISE EXCEPTION 'user_id exists, but not every message has one: a rollback was cut short'
            USING HINT = 'Finish it with memsync migrate rollback, or go forward again.';
    END IF;
END $do$;
