UPDATE
    session_lease
SET
    drain_requested = $2
WHERE
    session_id = $1
    AND deadline > now()
    AND drain_requested IS NULL;

SELECT
    component_name,
    runtime_info
FROM
    session
WHERE
    session_id = $1;

SELECT
    machine_id,
    process
FROM
    work
WHERE
    session_id = $1
ORDER BY
    machine_id;

INSERT INTO
    operation (
        operation_id,
        at,
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
        ticket
    )
VALUES
    ($1, now(), $2, …);
