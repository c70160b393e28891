SELECT
    CAST(current_user AS TEXT),
    wanted.name,
    to_regclass(wanted.name) IS NOT NULL,
    COALESCE(
        has_table_privilege(CAST(to_regclass(wanted.name) AS OID), 'SELECT'),
        false
    )
FROM
    (
        VALUES
            (CAST($1 AS TEXT)), …) AS wanted (name);

SELECT
    "machine"."machine_id" AS "bmdb_machine",
    "machine"."fence" AS "bmdb_fence",
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
                        OR "work_hold"."until" > (now())
                    )
            )
        )
    )
    AND (
        "bmdb_backoff"."machine_id" IS NULL
        OR "bmdb_backoff"."until" <= (now())
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
                    OR "process_pause"."until" > (now())
                )
        )
    )
LIMIT
    0;

SELECT
    CAST(current_user AS TEXT),
    CAST(w.privilege AS TEXT) || ' on ' || CAST(w.name AS TEXT)
FROM
    (
        VALUES
            ('machine', 'SELECT'),
            ('machine', 'INSERT'),
            ('machine', 'UPDATE'),
            ('machine', 'DELETE'),
            ('session', 'SELECT'),
            ('session', 'INSERT'),
            ('session', 'UPDATE'),
            ('session', 'DELETE'),
            ('session_lease', 'SELECT'),
            ('session_lease', 'INSERT'),
            ('session_lease', 'UPDATE'),
            ('session_lease', 'DELETE'),
            ('work', 'SELECT'),
            ('work', 'INSERT'),
            ('work', 'UPDATE'),
            ('work', 'DELETE'),
            ('work_history', 'SELECT'),
            ('work_history', 'INSERT'),
            ('work_backoff', 'SELECT'),
            ('work_backoff', 'INSERT'),
            ('work_backoff', 'UPDATE'),
            ('work_backoff', 'DELETE'),
            ('work_hold', 'SELECT'),
            ('work_hold', 'INSERT'),
            ('work_hold', 'UPDATE'),
            ('work_hold', 'DELETE'),
            ('process', 'SELECT'),
            ('process', 'INSERT'),
            ('process', 'UPDATE'),
            ('process', 'DELETE'),
            ('machine_provided', 'SELECT'),
            ('machine_provided', 'INSERT'),
            ('machine_provided', 'UPDATE'),
            ('machine_provided', 'DELETE'),
            ('machine_agent_started', 'SELECT'),
            ('machine_agent_started', 'INSERT'),
            ('machine_agent_started', 'UPDATE'),
            ('machine_agent_started', 'DELETE'),
            ('machine_agent_heartbeat', 'SELECT'),
            ('machine_agent_heartbeat', 'INSERT'),
            ('machine_agent_heartbeat', 'UPDATE'),
            ('machine_agent_heartbeat', 'DELETE'),
            ('machine_hardware_report', 'SELECT'),
            ('machine_hardware_report', 'INSERT'),
            ('machine_hardware_report', 'UPDATE'),
            ('machine_hardware_report', 'DELETE'),
            ('machine_os_installation_request', 'SELECT'),
            ('machine_os_installation_request', 'INSERT'),
            ('machine_os_installation_request', 'UPDATE'),
            ('machine_os_installation_request', 'DELETE'),
            ('machine_os_installation_report', 'SELECT'),
            ('machine_os_installation_report', 'INSERT'),
            ('machine_os_installation_report', 'UPDATE'),
            ('machine_os_installation_report', 'DELETE'),
            ('work_candidate', 'SELECT'),
            ('work_candidate', 'INSERT'),
            ('work_candidate', 'UPDATE'),
            ('work_candidate', 'DELETE'),
            ('work_retrieval', 'SELECT'),
            ('work_retrieval', 'INSERT'),
            ('work_retrieval', 'UPDATE'),
            ('work_retrieval', 'DELETE'),
            ('session_sighting', 'SELECT'),
            ('session_sighting', 'INSERT'),
            ('session_sighting', 'UPDATE'),
            ('session_sighting', 'DELETE'),
            ('process_rule', 'SELECT'),
            ('process_rule', 'INSERT'),
            ('process_rule', 'UPDATE'),
            ('process_rule', 'DELETE'),
            ('operation', 'SELECT'),
            ('operation', 'INSERT'),
            ('process_pause', 'SELECT'),
            ('process_pause', 'INSERT'),
            ('process_pause', 'UPDATE'),
            ('process_pause', 'DELETE')
    ) AS w (name, privilege)
    JOIN pg_class c ON c.relname = w.name
    JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE
    n.nspname = current_schema()
    AND NOT has_table_privilege(c.oid, w.privilege);

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
    ($1, $2, $3, $4, now(), $5)
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
    ($1, $2, $3, $4, $5, $6, now())
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
        CAST(extract(epoch
                FROM
                    now()) * 1000 AS BIGINT),
        0,
        now(),
        now()
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
