SELECT
    operation_id,
    CASE
        WHEN at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN at
        WHEN at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS at,
    done_by,
    component,
    verb,
    machine_id,
    slot,
    process,
    work_id,
    session_id,
    detail,
    reason,
    ticket,
    CAST(operation_id AS TEXT) AS row_name
FROM
    operation
WHERE
    machine_id = $1
ORDER BY
    operation.at DESC,
    operation_id DESC
LIMIT
    $2;
