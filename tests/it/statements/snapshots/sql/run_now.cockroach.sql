SELECT
    name
FROM
    process
ORDER BY
    name;

UPDATE
    work_backoff
SET
    until = now()
WHERE
    machine_id = $1
    AND process = $2
    AND (
        until IS NULL
        OR until > now()
    );

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
