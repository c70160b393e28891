SELECT
    "machine"."machine_id"
FROM
    "machine"
    INNER JOIN "machine_provided" ON "machine_provided"."machine_id" = "machine"."machine_id"
WHERE
    "machine"."machine_id" >= $1
    AND "machine_provided"."machine_id" >= $2
    AND (
        (
            NOT EXISTS (
                SELECT
                    "machine_agent_started"."machine_id"
                FROM
                    "machine_agent_started"
                WHERE
                    "machine_agent_started"."machine_id" = "machine"."machine_id"
                    AND "machine_agent_started"."machine_id" >= $3
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
                    AND "machine_os_installation_request"."machine_id" >= $4
                    AND "machine_os_installation_report"."machine_id" >= $5
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
                    AND "work"."machine_id" >= $6
                    AND "work"."slot" = $7
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
                    AND "work_hold"."machine_id" >= $8
                    AND "work_hold"."slot" IN ($9, $10)
                    AND (
                        "work_hold"."until" IS NULL
                        OR "work_hold"."until" > (now())
                    )
            )
        )
    )
    AND (
        NOT EXISTS (
            SELECT
                "work_backoff"."machine_id"
            FROM
                "work_backoff"
            WHERE
                "work_backoff"."machine_id" = "machine"."machine_id"
                AND "work_backoff"."machine_id" >= $11
                AND "work_backoff"."process" = $12
                AND (
                    "work_backoff"."until" IS NULL
                    OR "work_backoff"."until" > (now())
                )
        )
    )
ORDER BY
    "machine"."machine_id" ASC
LIMIT
    $13;

SELECT
    "machine"."machine_id"
FROM
    "machine"
    INNER JOIN "machine_provided" ON "machine_provided"."machine_id" = "machine"."machine_id"
WHERE
    "machine"."machine_id" < $1
    AND "machine_provided"."machine_id" < $2
    AND (
        (
            NOT EXISTS (
                SELECT
                    "machine_agent_started"."machine_id"
                FROM
                    "machine_agent_started"
                WHERE
                    "machine_agent_started"."machine_id" = "machine"."machine_id"
                    AND "machine_agent_started"."machine_id" < $3
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
                    AND "machine_os_installation_request"."machine_id" < $4
                    AND "machine_os_installation_report"."machine_id" < $5
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
                    AND "work"."machine_id" < $6
                    AND "work"."slot" = $7
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
                    AND "work_hold"."machine_id" < $8
                    AND "work_hold"."slot" IN ($9, $10)
                    AND (
                        "work_hold"."until" IS NULL
                        OR "work_hold"."until" > (now())
                    )
            )
        )
    )
    AND (
        NOT EXISTS (
            SELECT
                "work_backoff"."machine_id"
            FROM
                "work_backoff"
            WHERE
                "work_backoff"."machine_id" = "machine"."machine_id"
                AND "work_backoff"."machine_id" < $11
                AND "work_backoff"."process" = $12
                AND (
                    "work_backoff"."until" IS NULL
                    OR "work_backoff"."until" > (now())
                )
        )
    )
ORDER BY
    "machine"."machine_id" ASC
LIMIT
    $13;
