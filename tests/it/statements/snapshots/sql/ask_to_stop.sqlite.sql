UPDATE
    work
SET
    stop_requested = $2
WHERE
    work_id = $1
RETURNING
    machine_id,
    slot,
    process;

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
