SELECT
    name
FROM
    process
ORDER BY
    name;

DELETE FROM
    work_backoff
WHERE
    machine_id = $1
    AND process = $2;

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
