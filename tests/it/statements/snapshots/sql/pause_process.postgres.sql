SELECT
    name
FROM
    process
ORDER BY
    name;

INSERT INTO
    process_pause (
        process,
        until,
        reason,
        paused_by,
        paused_at,
        ticket
    )
VALUES
    ($1, CAST($2 AS TIMESTAMPTZ), $3, $4, now(), $5)
ON CONFLICT
    (process)
DO UPDATE SET
    until = excluded.until,
    reason = excluded.reason,
    paused_by = excluded.paused_by,
    paused_at = excluded.paused_at,
    ticket = excluded.ticket
WHERE
    process_pause.until <= now()
    OR (
        process_pause.until IS NOT NULL
        AND (
            excluded.until IS NULL
            OR excluded.until > process_pause.until
        )
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
