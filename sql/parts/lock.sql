-- Only one migration may run, by script or by memsync. The lock ends with this session.
DO $do$
DECLARE
    _key CONSTANT bigint := {{lock_key}};
    _holder record;
BEGIN
    IF NOT pg_try_advisory_lock(_key) THEN
        {{query:lock_holders}} INTO _holder;
        RAISE EXCEPTION 'another migration is running (pid % since %); nothing was done here',
            _holder.pid, _holder.since;
    END IF;
END $do$;
