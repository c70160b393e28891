SELECT
    machine_id,
    fence,
    event,
    work_id,
    process,
    slot,
    session_id,
    component_name,
    runtime_info,
    CASE
        WHEN at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN at
        WHEN at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS at,
    cause,
    CAST(machine_id AS TEXT) || ' ' || CAST(fence AS TEXT) || ' ' || event AS row_name
FROM
    work_history
WHERE
    machine_id = $1
ORDER BY
    fence,
    CASE
        WHEN event = 'started' THEN 0
        ELSE 1
    END,
    event
LIMIT
    $2;
