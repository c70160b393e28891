PRAGMA journal_mode = WAL;
PRAGMA foreign_keys = ON;
PRAGMA synchronous = NORMAL;;

SELECT
    '',
    wanted.column1,
    EXISTS (
        SELECT
            name
        FROM
            sqlite_master
        WHERE
            '"' || name || '"' = wanted.column1 COLLATE NOCASE
    ),
    true
FROM
    (
        VALUES
            ($1), …) AS wanted;

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
LIMIT
    0;

INSERT INTO
    process (
        name,
        slot,
        description,
        cool_down_ms,
        registered_at,
        registered_by
    )
VALUES
    (
        $1,
        $2,
        $3,
        $4,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        $5
    )
ON CONFLICT
    (name)
DO UPDATE SET
    description = excluded.description,
    cool_down_ms = excluded.cool_down_ms
WHERE
    process.slot = excluded.slot;

SELECT
    slot,
    registered_by
FROM
    process
WHERE
    name = $1;

INSERT INTO
    process_rule (
        process,
        digest,
        item,
        item_machine_id,
        clauses,
        component,
        used_at
    )
VALUES
    (
        $1,
        $2,
        $3,
        $4,
        $5,
        $6,
        strftime('%Y-%m-%d %H:%M:%f', 'now')
    )
ON CONFLICT
    (process, digest)
DO UPDATE SET
    component = excluded.component,
    used_at = excluded.used_at;

INSERT INTO
    work_retrieval (process, begun, ended, began_at, until)
VALUES
    (
        $1,
        CAST(unixepoch('subsec') * 1000 AS INTEGER),
        0,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        strftime('%Y-%m-%d %H:%M:%f', 'now')
    )
ON CONFLICT
    (process)
DO NOTHING;

SELECT
    CAST(count(digest) AS BIGINT)
FROM
    process_rule
WHERE
    process = $1;
