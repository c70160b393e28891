DELETE FROM
    work
WHERE
    work_id IN ($1, …)
    AND (machine_id, slot, fence) IN (
        VALUES
            ($4, …), …)
RETURNING
    work_id;

SELECT
    "work_backoff"."machine_id",
    "work_backoff"."process",
    CAST("attempts" AS BIGINT),
    CAST("last_interval_seconds" AS BIGINT)
FROM
    "work_backoff"
WHERE
    "work_backoff"."machine_id" IN (?, ?, ?);

INSERT INTO
    work_backoff (
        machine_id,
        process,
        until,
        cause,
        attempts,
        last_interval_seconds
    )
VALUES
    (
        $1,
        $2,
        strftime(
            '%Y-%m-%d %H:%M:%f',
            'now',
            ($3 / 1000.0) || ' seconds'
        ),
        $4,
        …
    ),
    (
        $7,
        $8,
        strftime(
            '%Y-%m-%d %H:%M:%f',
            'now',
            ($9 / 1000.0) || ' seconds'
        ),
        $10,
        …
    ),
    (
        $13,
        $14,
        strftime(
            '%Y-%m-%d %H:%M:%f',
            'now',
            ($15 / 1000.0) || ' seconds'
        ),
        $16,
        …
    )
ON CONFLICT
    (machine_id, process)
DO UPDATE SET
    until = excluded.until,
    cause = excluded.cause,
    attempts = excluded.attempts,
    last_interval_seconds = excluded.last_interval_seconds;
INSERT INTO
    work_history (
        machine_id,
        fence,
        event,
        work_id,
        process,
        slot,
        session_id,
        component_name,
        runtime_info,
        at,
        cause
    )
VALUES
    (
        $19,
        $20,
        $21,
        $22,
        $23,
        $24,
        $25,
        $26,
        $27,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        $28
    ),
    …;
