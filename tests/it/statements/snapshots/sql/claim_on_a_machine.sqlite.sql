SELECT
    "machine"."machine_id" AS "bmdb_machine",
    max(
        machine.fence + 1,
        CAST(unixepoch('subsec') * 1000 AS INTEGER)
    ) AS "bmdb_fence",
    CAST("bmdb_backoff"."attempts" AS BIGINT) AS "bmdb_attempts",
    CAST("bmdb_backoff"."last_interval_seconds" AS BIGINT) AS "bmdb_interval",
    "machine_provided"."machine_id" AS "bmdb_item_machine_id",
    "machine_provided"."provider" AS "bmdb_item_provider",
    "machine_provided"."provider_id" AS "bmdb_item_provider_id",
    "machine_provided"."reservation" AS "bmdb_item_reservation",
    "machine_provided"."address" AS "bmdb_item_address",
    "machine_provided"."location" AS "bmdb_item_location",
    "machine_provided"."status" AS "bmdb_item_status"
FROM
    "machine"
    INNER JOIN "machine_provided" ON "machine_provided"."machine_id" = "machine"."machine_id"
    LEFT JOIN "work_backoff" AS "bmdb_backoff" ON "bmdb_backoff"."machine_id" = "machine"."machine_id"
    AND "bmdb_backoff"."process" = $1
WHERE
    TRUE
    AND (
        (
            NOT EXISTS (
                SELECT
                    "machine_agent_started"."machine_id"
                FROM
                    "machine_agent_started"
                WHERE
                    "machine_agent_started"."machine_id" = "machine"."machine_id"
            )
        )
        AND (
            NOT EXISTS (
                SELECT
                    "machine_os_installation_request"."machine_id"
                FROM
                    "machine_os_installation_request"
                    INNER JOIN "machine_os_installation_report" ON "machine_os_installation_report"."machine_id" = "machine_os_installation_request"."machine_id"
                    AND "machine_os_installation_report"."generation" = "machine_os_installation_request"."generation"
                WHERE
                    "machine_os_installation_request"."machine_id" = "machine"."machine_id"
            )
        )
    )
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
    AND "machine"."machine_id" IN ($6)
ORDER BY
    "machine"."machine_id" < $7 ASC,
    "machine"."machine_id" ASC
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
    machine
SET
    fence = raised.column2
FROM
    (
        VALUES
            ($1, $2)) AS raised
WHERE
    machine.machine_id = raised.column1;
INSERT INTO
    work (
        machine_id,
        slot,
        process,
        work_id,
        session_id,
        fence,
        claimed_at
    )
VALUES
    (
        $3,
        $4,
        $5,
        $6,
        $7,
        $8,
        strftime('%Y-%m-%d %H:%M:%f', 'now')
    );
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
        $9,
        $10,
        $11,
        $12,
        $13,
        $14,
        $15,
        $16,
        $17,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        $18
    );
DELETE FROM
    work_candidate
WHERE
    process = $19
    AND machine_id IN ($20);
