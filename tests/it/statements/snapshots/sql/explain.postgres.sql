SET
    TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT
    machine.machine_id,
    now(),
    CAST(
        CASE
            WHEN machine.fence < 9223372036854775807 THEN 1
            ELSE 0
        END AS BIGINT
    ),
    CAST(
        CASE
            WHEN "machine_provided"."machine_id" IS NOT NULL THEN 1
            ELSE 0
        END AS BIGINT
    ),
    CAST(
        CASE
            WHEN EXISTS (
                SELECT
                    "machine_provided"."machine_id"
                FROM
                    "machine_provided"
                WHERE
                    "machine_provided"."machine_id" = "machine"."machine_id"
            ) THEN 1
            ELSE 0
        END AS BIGINT
    ),
    CAST(
        CASE
            WHEN NOT EXISTS (
                SELECT
                    "machine_agent_started"."machine_id"
                FROM
                    "machine_agent_started"
                WHERE
                    "machine_agent_started"."machine_id" = "machine"."machine_id"
            ) THEN 1
            ELSE 0
        END AS BIGINT
    ),
    CAST(
        CASE
            WHEN NOT EXISTS (
                SELECT
                    "machine_os_installation_request"."machine_id"
                FROM
                    "machine_os_installation_request"
                    INNER JOIN "machine_os_installation_report" ON "machine_os_installation_report"."machine_id" = "machine_os_installation_request"."machine_id"
                    AND "machine_os_installation_report"."generation" = "machine_os_installation_request"."generation"
                WHERE
                    "machine_os_installation_request"."machine_id" = "machine"."machine_id"
            ) THEN 1
            ELSE 0
        END AS BIGINT
    )
FROM
    "machine"
    LEFT JOIN "machine_provided" ON "machine_provided"."machine_id" = "machine"."machine_id"
WHERE
    machine.machine_id IN ($1);

SELECT
    process,
    CASE
        WHEN until < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN until <= TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN until
    END AS until,
    reason,
    paused_by,
    CASE
        WHEN paused_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN paused_at
        WHEN paused_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN paused_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS paused_at,
    ticket
FROM
    process_pause
WHERE
    (
        until IS NULL
        OR until > now()
    )
    AND process = $1;

SELECT
    w.machine_id,
    w.process,
    w.session_id,
    s.component_name,
    s.runtime_info,
    w.fence,
    CASE
        WHEN w.claimed_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN w.claimed_at
        WHEN w.claimed_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN w.claimed_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END,
    CASE
        WHEN l.deadline < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN l.deadline <= TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN l.deadline
    END,
    w.progress,
    w.stop_requested
FROM
    work w
    JOIN session s ON s.session_id = w.session_id
    LEFT JOIN session_lease l ON l.session_id = w.session_id
WHERE
    w.slot = $1
    AND w.machine_id IN ($2);

SELECT
    machine_id,
    process,
    CASE
        WHEN until < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN until <= TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN until
    END AS until,
    cause,
    attempts,
    last_interval_seconds,
    CAST(machine_id AS TEXT) || ' ' || process AS row_name
FROM
    work_backoff
WHERE
    process = $1
    AND (
        until IS NULL
        OR until > now()
    )
    AND machine_id IN ($2);

SELECT
    machine_id,
    slot,
    CASE
        WHEN until < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN until <= TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN until
    END AS until,
    reason,
    placed_by,
    CASE
        WHEN placed_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN placed_at
        WHEN placed_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN placed_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS placed_at,
    ticket,
    CAST(machine_id AS TEXT) || ' ' || slot AS row_name
FROM
    work_hold
WHERE
    slot IN ($1, $2)
    AND (
        until IS NULL
        OR until > now()
    )
    AND machine_id IN ($3)
ORDER BY
    machine_id,
    slot;
