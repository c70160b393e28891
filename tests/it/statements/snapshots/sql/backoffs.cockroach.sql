SELECT
    machine_id,
    process,
    CASE
        WHEN until < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN until <= TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN until
    END AS until,
    cause,
    attempts,
    last_interval_seconds,
    CAST(machine_id AS TEXT) || ' ' || process AS row_name
FROM
    work_backoff
ORDER BY
    machine_id,
    process
LIMIT
    $1;
