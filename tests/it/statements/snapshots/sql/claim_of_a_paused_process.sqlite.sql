SELECT
    machine_id
FROM
    (
        SELECT
            *
        FROM
            (
                SELECT
                    machine_id
                FROM
                    work_candidate
                WHERE
                    process = $1
                    AND machine_id >= $2
                ORDER BY
                    machine_id
                LIMIT
                    17
            )
        UNION ALL
        SELECT
            *
        FROM
            (
                SELECT
                    machine_id
                FROM
                    work_candidate
                WHERE
                    process = $3
                    AND machine_id < $4
                ORDER BY
                    machine_id
                LIMIT
                    17
            )
    )
LIMIT
    9 OFFSET $5;

SELECT
    "machine"."machine_id" AS "bmdb_machine",
    max(
        machine.fence + 1,
        CAST(unixepoch('subsec') * 1000 AS INTEGER)
    ) AS "bmdb_fence",
    CAST("bmdb_backoff"."attempts" AS BIGINT) AS "bmdb_attempts",
    CAST("bmdb_backoff"."last_interval_seconds" AS BIGINT) AS "bmdb_interval",
    "machine"."machine_id" AS "bmdb_item_machine_id",
    "machine"."created_at" AS "bmdb_item_created_at",
    "machine"."fence" AS "bmdb_item_fence"
FROM
    "machine"
    LEFT JOIN "work_backoff" AS "bmdb_backoff" ON "bmdb_backoff"."machine_id" = "machine"."machine_id"
    AND "bmdb_backoff"."process" = $1
WHERE
    TRUE
    AND TRUE
    AND (
        "machine"."fence" < 9223372036854775807
        AND (
            NOT EXISTS (
                SELECT
                    "work"."machine_id"
                FROM
                    "work"
                WHERE
                    "work"."machine_id" = "machine"."machine_id"
                    AND "work"."slot" = $2
            )
        )
        AND (
            NOT EXISTS (
                SELECT
                    "work_hold"."machine_id"
                FROM
                    "work_hold"
                WHERE
                    "work_hold"."machine_id" = "machine"."machine_id"
                    AND "work_hold"."slot" IN ($3, $4)
                    AND (
                        "work_hold"."until" IS NULL
                        OR "work_hold"."until" > (strftime('%Y-%m-%d %H:%M:%f', 'now'))
                    )
            )
        )
    )
    AND (
        "bmdb_backoff"."machine_id" IS NULL
        OR "bmdb_backoff"."until" <= (strftime('%Y-%m-%d %H:%M:%f', 'now'))
    )
    AND (
        NOT EXISTS (
            SELECT
                "process"
            FROM
                "process_pause"
            WHERE
                "process_pause"."process" = $5
                AND (
                    "process_pause"."until" IS NULL
                    OR "process_pause"."until" > (strftime('%Y-%m-%d %H:%M:%f', 'now'))
                )
        )
    )
    AND machine.machine_id IN ()
ORDER BY
    machine.machine_id < $6,
    machine.machine_id
LIMIT
    1;

SELECT
    work_retrieval.begun AS bmdb_begun,
    work_retrieval.ended AS bmdb_ended,
    EXISTS (
        SELECT
            pause.process
        FROM
            process_pause AS pause
        WHERE
            pause.process = $2
            AND (
                pause.until IS NULL
                OR pause.until > strftime('%Y-%m-%d %H:%M:%f', 'now')
            )
    ) AS bmdb_paused
FROM
    (
        SELECT
            1) AS one
    LEFT JOIN work_retrieval ON work_retrieval.process = $1;

UPDATE
    work_retrieval
SET
    begun = begun + 1,
    began_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    until = strftime(
        '%Y-%m-%d %H:%M:%f',
        'now',
        (
            (
                CASE
                    WHEN 10000 > 3162240000000 THEN 3162240000000
                    ELSE 10000
                END
            ) / 1000.0
        ) || ' seconds'
    )
WHERE
    process = $1
    AND (
        until <= strftime('%Y-%m-%d %H:%M:%f', 'now')
        OR until > strftime(
            '%Y-%m-%d %H:%M:%f',
            'now',
            (
                (
                    CASE
                        WHEN 20000 > 3162240000000 THEN 3162240000000
                        ELSE 20000
                    END
                ) / 1000.0
            ) || ' seconds'
        )
    )
    AND ended <= COALESCE(
        CAST($2 AS BIGINT),
        (
            SELECT
                seen.begun
            FROM
                work_retrieval AS seen
            WHERE
                seen.process = $1
        )
    )
    AND NOT EXISTS (
        SELECT
            pause.process
        FROM
            process_pause AS pause
        WHERE
            pause.process = $3
            AND (
                pause.until IS NULL
                OR pause.until > strftime('%Y-%m-%d %H:%M:%f', 'now')
            )
    );
