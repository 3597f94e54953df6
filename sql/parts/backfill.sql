\echo 'backfill: decides every (user, personality), fills persona_id, builds indexes and key'
CREATE OR REPLACE FUNCTION pg_temp.history_blocks() RETURNS bigint LANGUAGE sql AS $fn$
    SELECT blocks + 1 FROM ({{query:history_blocks}}) s
$fn$;

-- Decides every (user, personality) that is not decided yet: by the choice of the user for the
-- personality, else by the default of the user. SQL has no evidence from long-term memory.
CREATE OR REPLACE PROCEDURE pg_temp.freeze() LANGUAGE plpgsql AS $fn$
DECLARE
    _without uuid[] := '{}';
    _user uuid;
BEGIN
    -- A decision whose persona was deleted would be filled in, and a standing key would refuse it.
    {{query:thaw_vanished}};
    COMMIT;
    FOR _user IN
        {{query:freeze_map}}
    LOOP
        _without := _without || _user;
    END LOOP;
    COMMIT;
    IF cardinality(_without) > 0 AND current_setting('memsync.unresolved') = 'fail' THEN
        RAISE EXCEPTION '% users have no persona. They are: %', cardinality(_without),
            left(array_to_string(_without, ', '), 1000)
            USING HINT = 'Give them one, or run this again with -v unresolved=create to make a '
                         'default persona for each.';
    END IF;
    FOREACH _user IN ARRAY _without LOOP
        CALL pg_temp.run('users', ARRAY[format('SELECT memsync.create_default_persona(%L)',
                                               _user)]);
    END LOOP;
    IF cardinality(_without) > 0 THEN
        FOR _user IN
            {{query:freeze_map}}
        LOOP
            NULL;  -- the next pass decides users who came meanwhile
        END LOOP;
        COMMIT;
    END IF;
    {{query:decide_since}};
    {{query:analyze_decisions}};
    COMMIT;
END $fn$;

CREATE OR REPLACE FUNCTION pg_temp.clear_range(_from bigint, _to bigint)
RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    _start CONSTANT text := format('(%s,0)', _from);
    _stop CONSTANT text := format('(%s,0)', _to);
BEGIN
    {{query:clear_vanished_personas}};
END $fn$;

-- Forgets decisions whose persona was deleted since, and empties persona_id of their messages.
CREATE OR REPLACE PROCEDURE pg_temp.clear_vanished() LANGUAGE plpgsql AS $fn$
DECLARE
    _blocks CONSTANT int := 8192;
    _from bigint := 0;
    _end_block bigint := 0;
BEGIN
    {{query:thaw_vanished}};
    COMMIT;
    IF ({{query:rows_of_vanished_personas}}) > 0 THEN
        _end_block := pg_temp.history_blocks();
    END IF;
    WHILE _from < _end_block LOOP
        CALL pg_temp.run('conversation_history', ARRAY[
            format('SELECT pg_temp.clear_range(%s, %s)', _from, _from + _blocks)]);
        _from := _from + _blocks;
    END LOOP;
    COMMIT;
END $fn$;

-- Fills a part of the rows of every page in a range of blocks; the last part moves the checkpoint.
CREATE OR REPLACE FUNCTION pg_temp.fill_range(_from bigint, _to bigint, _part int, _parts int)
RETURNS bigint LANGUAGE plpgsql AS $fn$
DECLARE
    _fill CONSTANT text := 'personas';
    _start CONSTANT text := format('(%s,0)', _from);
    _stop CONSTANT text := format('(%s,0)', _to);
    _next_block CONSTANT bigint := CASE WHEN _part = _parts - 1 THEN _to ELSE _from END;
    _began CONSTANT timestamptz := clock_timestamp();
    _archived bigint;
    _rows bigint;
    _busy_s float;
BEGIN
    PERFORM * FROM ({{query:fill_by_index}}) AS set_here;
    {{query:fill_personas}};
    GET DIAGNOSTICS _rows = ROW_COUNT;
    IF _part = _parts - 1 THEN
        {{query:fill_archived}};
        GET DIAGNOSTICS _archived = ROW_COUNT;
        _rows := _rows + _archived;
    END IF;
    _busy_s := extract(epoch FROM clock_timestamp() - _began);
    {{query:save_fill}};
    RETURN _rows;
END $fn$;

-- Fills from the checkpoint up to a block, in ranges whose parts take about batch_target_ms each.
-- The rows of a later part take the space that the part before freed in the same page: these are
-- HOT updates, which touch no index. https://www.postgresql.org/docs/current/storage-hot.html
CREATE OR REPLACE PROCEDURE pg_temp.fill_up_to(_end bigint) LANGUAGE plpgsql AS $fn$
DECLARE
    _target_s CONSTANT float := current_setting('memsync.batch_target_ms')::float / 1000;
    _parts CONSTANT int := {{fill_parts}};
    _block bigint;
    _stop bigint;
    _size bigint := 128;
    _began timestamptz;
    _took_s float;
    _rows text;
BEGIN
    SELECT next_block INTO _block FROM memsync.backfill WHERE fill = 'personas';
    WHILE _block < _end LOOP
        _stop := least(_block + _size, _end);
        _took_s := 0;
        FOR _part IN 0.._parts - 1 LOOP
            _began := clock_timestamp();
            CALL pg_temp.ask('conversation_history',
                             ARRAY[format('SELECT pg_temp.fill_range(%s, %s, %s, %s)',
                                          _block, _stop, _part, _parts)], _rows);
            PERFORM set_config('memsync.rows_filled',
                               (current_setting('memsync.rows_filled')::bigint
                                + _rows::bigint)::text, false);
            _took_s := greatest(_took_s, extract(epoch FROM clock_timestamp() - _began));
        END LOOP;
        _block := _stop;
        _size := greatest(1, least(8192, _size * least(2.0, _target_s / greatest(_took_s, 1e-4))));
    END LOOP;
    COMMIT;
END $fn$;

DO $do$
DECLARE
    _fill CONSTANT text := 'personas';
    _unresolved CONSTANT text := current_setting('memsync.unresolved');
    _end_block bigint;
    _rows_total bigint;
BEGIN
    PERFORM pg_temp.require(
        pg_temp.has_column('conversation_history', 'persona_id')
        AND (pg_temp.has_trigger('conversation_history', '{{catalog:IDENTITY_TRIGGER}}')
             OR NOT pg_temp.has_users()), 'backfill');
    PERFORM pg_temp.begin_phase('backfill');
    COMMIT;
    CALL pg_temp.note_created(ARRAY['{{catalog:PERSONA_INDEX}}', '{{catalog:RETRIEVAL_INDEX}}',
                                    '{{catalog:PERSONA_KEY}}']);
    IF pg_temp.has_users() THEN
        CALL pg_temp.freeze();
        _end_block := pg_temp.history_blocks();
        {{query:decided_rows}} INTO _rows_total;
        {{query:start_fill}};
    END IF;
END $do$;

-- One slice after another. VACUUM lets the next slice use the space of the rows that the last one
-- replaced. Otherwise the table and its indexes would grow.
SELECT format('CALL pg_temp.fill_up_to(%s)', least(end_block, next_block + n * slice)),
       $q${{query:vacuum_history}}$q$
FROM (SELECT next_block, end_block, greatest(1, (end_block + 9) / 10) AS slice
      FROM memsync.backfill WHERE fill = 'personas' AND next_block < end_block) b
CROSS JOIN generate_series(1, 10) AS n
WHERE pg_temp.has_users() AND next_block + (n - 1) * slice < end_block
  AND ({{query:history_has_null_persona}})
ORDER BY n
\gexec

-- The rows that are left lost their persona to a deletion, or were not decided yet.
DO $do$
DECLARE
    _fill CONSTANT text := 'personas';
    _passes_max CONSTANT int := 5;
    _end_block bigint;
    _left bigint;
BEGIN
    IF NOT pg_temp.has_users() THEN
        RETURN;
    END IF;
    FOR _pass IN 1.._passes_max LOOP
        SELECT end_block INTO _end_block FROM memsync.backfill WHERE fill = _fill;
        CALL pg_temp.fill_up_to(_end_block);
        CALL pg_temp.clear_vanished();
        EXIT WHEN NOT ({{query:history_has_null_persona}});
        CALL pg_temp.freeze();
        _end_block := pg_temp.history_blocks();
        {{query:restart_fill}};
        COMMIT;
    END LOOP;
    SELECT count(*) INTO _left FROM conversation_history WHERE persona_id IS NULL;
    IF _left > 0 THEN
        RAISE EXCEPTION '% messages still have no persona after % passes', _left, _passes_max
            USING HINT = 'Run this again.';
    END IF;
    {{query:analyze_history}};
END $do$;

-- After the fill, because each filled row would have to update them.
SELECT pg_temp.index_work('conversation_history', i, s) FROM (VALUES
    ('{{catalog:PERSONA_INDEX}}', $q${{query:create_persona_index}}$q$),
    ('{{catalog:RETRIEVAL_INDEX}}', $q${{query:create_retrieval_index}}$q$)) AS v(i, s)
\gexec

DO $do$
BEGIN
    IF NOT coalesce(pg_temp.is_valid('conversation_history', '{{catalog:PERSONA_KEY}}'), false) THEN
        CALL pg_temp.foreign_key('conversation_history', 'persona_id', 'personas');
        -- The key now refuses unknown personas. Older ones must go before its validation.
        CALL pg_temp.clear_vanished();
        CALL pg_temp.validate('conversation_history', '{{catalog:PERSONA_KEY}}');
    END IF;
    IF NOT pg_temp.is_backfilled() THEN
        RAISE EXCEPTION 'backfill ended, but a message has no persona, or an object is missing'
            USING HINT = 'Run this again.';
    END IF;
    PERFORM pg_temp.end_phase();
END $do$;
