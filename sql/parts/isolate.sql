\echo 'isolate: creates memsync''s own tables, and the index for reading by user'
DO $do$
BEGIN
    CALL pg_temp.run('users', ARRAY['{{query:create_own_schema}}']);
    CALL pg_temp.run('memsync.instance', {{own_schema}});
    PERFORM pg_temp.begin_phase('isolate');
    IF pg_temp.has_users() THEN
        CALL pg_temp.note_created(ARRAY['{{catalog:USER_INDEX}}']);
    END IF;
END $do$;

SELECT pg_temp.index_work('conversation_history', '{{catalog:USER_INDEX}}',
    $q${{query:create_user_index}}$q$)
WHERE pg_temp.has_users()
\gexec

DO $do$ BEGIN PERFORM pg_temp.end_phase(); END $do$;
