WITH
to_end (
    machine_id,
    slot,
    process,
    fence,
    work_id,
    attempts,
    interval_seconds,
    wait_ms,
    cause
) AS (
    VALUES
        (
            CAST($1 AS UUID),
            CAST($2 AS TEXT),
            CAST($3 AS TEXT),
            CAST($4 AS BIGINT),
            CAST($5 AS UUID),
            CAST($6 AS BIGINT),
            CAST($7 AS BIGINT),
            CAST($8 AS BIGINT),
            CAST($9 AS TEXT)
        ),
        …
),
ended AS (
    DELETE FROM
        work
    USING
        to_end
    WHERE
        work.machine_id = to_end.machine_id
        AND work.slot = to_end.slot
        AND work.fence = to_end.fence
        AND work.work_id = to_end.work_id
        AND work.work_id = ANY (
            ARRAY(
                SELECT
                    work_id
                FROM
                    to_end
            )
        )
        AND COALESCE(
            (
                SELECT
                    work_backoff.attempts
                FROM
                    work_backoff
                WHERE
                    work_backoff.machine_id = to_end.machine_id
                    AND work_backoff.process = to_end.process
            ),
            0
        ) = to_end.attempts - 1
    RETURNING
        work.machine_id,
        work.slot,
        work.process,
        work.work_id,
        work.fence,
        to_end.attempts,
        to_end.interval_seconds,
        to_end.wait_ms,
        to_end.cause
),
backed_off AS (
    INSERT INTO
        work_backoff (
            machine_id,
            process,
            until,
            cause,
            attempts,
            last_interval_seconds
        )
    SELECT
        ended.machine_id,
        ended.process,
        (
            now() + CAST(
                (
                    CASE
                        WHEN ended.wait_ms > 3162240000000 THEN 3162240000000
                        ELSE ended.wait_ms
                    END
                ) AS BIGINT
            ) * INTERVAL '1 millisecond'
        ),
        ended.cause,
        ended.attempts,
        ended.interval_seconds
    FROM
        ended
    ON CONFLICT
        (machine_id, process)
    DO UPDATE SET
        until = excluded.until,
        cause = excluded.cause,
        attempts = excluded.attempts,
        last_interval_seconds = excluded.last_interval_seconds
),
recorded_ends AS (
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
    SELECT
        ended.machine_id,
        ended.fence,
        CAST($28 AS TEXT),
        ended.work_id,
        ended.process,
        ended.slot,
        CAST($29 AS UUID),
        CAST($30 AS TEXT),
        CAST($31 AS TEXT),
        now(),
        ended.cause
    FROM
        ended
)
SELECT
    work_id
FROM
    ended;
