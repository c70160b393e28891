SELECT
    name
FROM
    process
ORDER BY
    name;

SELECT
    work_id
FROM
    work
WHERE
    process = $1
    AND stop_requested IS NULL
ORDER BY
    machine_id,
    slot;

UPDATE
    work
SET
    stop_requested = $1
WHERE
    stop_requested IS NULL
    AND work_id IN ($2);

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
    (
        $1,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        $2,
        …
    );
