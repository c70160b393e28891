SELECT
    s.session_id,
    s.component_name,
    s.runtime_info,
    CASE
        WHEN s.created_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN s.created_at
        WHEN s.created_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN s.created_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS created_at,
    s.interval_ms,
    CASE
        WHEN l.deadline BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN l.deadline
        WHEN l.deadline < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN l.deadline > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS deadline,
    now() AS as_of,
    (
        SELECT
            CAST(count(w.work_id) AS BIGINT)
        FROM
            work w
        WHERE
            w.session_id = s.session_id
    ) AS works,
    l.drain_requested,
    CAST(s.session_id AS TEXT) AS row_name
FROM
    session s
    LEFT JOIN session_lease l ON l.session_id = s.session_id
ORDER BY
    s.session_id
LIMIT
    $1;
