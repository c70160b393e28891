SELECT
    name
FROM
    process
ORDER BY
    name;

DELETE FROM
    process_pause
WHERE
    process = $1
RETURNING
    until IS NULL
    OR until > now();

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
