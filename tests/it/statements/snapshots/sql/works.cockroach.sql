SELECT
    w.work_id,
    w.machine_id,
    p.provider_id,
    w.slot,
    w.process,
    w.fence,
    w.session_id,
    s.component_name,
    s.runtime_info,
    CASE
        WHEN w.claimed_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN w.claimed_at
        WHEN w.claimed_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN w.claimed_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS claimed_at,
    CASE
        WHEN l.deadline < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN l.deadline <= TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN l.deadline
    END AS deadline,
    now() AS as_of,
    w.progress,
    w.stop_requested,
    CAST(w.machine_id AS TEXT) || ' ' || w.slot AS row_name
FROM
    work w
    JOIN session s ON s.session_id = w.session_id
    LEFT JOIN session_lease l ON l.session_id = w.session_id
    LEFT JOIN machine_provided p ON p.machine_id = w.machine_id
WHERE
    w.fence > $1
ORDER BY
    w.machine_id,
    w.slot
LIMIT
    $2;
