SELECT
    machine.machine_id
FROM
    "machine"
    JOIN "machine_provided" ON "machine_provided"."machine_id" = "machine"."machine_id"
WHERE
    "machine"."fence" < 9223372036854775807
    AND (
        NOT EXISTS (
            SELECT
                "work"."machine_id"
            FROM
                "work"
            WHERE
                "work"."machine_id" = "machine"."machine_id"
                AND "work"."slot" = $1
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
                AND "work_hold"."slot" IN ($2, $3)
                AND (
                    "work_hold"."until" IS NULL
                    OR "work_hold"."until" > (strftime('%Y-%m-%d %H:%M:%f', 'now'))
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
                AND "work_backoff"."process" = $4
                AND (
                    "work_backoff"."until" IS NULL
                    OR "work_backoff"."until" > (strftime('%Y-%m-%d %H:%M:%f', 'now'))
                )
        )
    )
    AND (
        EXISTS (
            SELECT
                "machine_provided"."machine_id"
            FROM
                "machine_provided"
            WHERE
                "machine_provided"."machine_id" = "machine"."machine_id"
        )
    )
    AND (
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
ORDER BY
    machine.machine_id
LIMIT
    100;
