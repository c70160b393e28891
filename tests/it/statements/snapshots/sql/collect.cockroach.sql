SELECT
    s.session_id,
    s.interval_ms,
    CAST(l.deadline AS TEXT),
    CAST(
        CASE
            WHEN l.deadline BETWEEN now()
            AND (
                now() + CAST(
                    CASE
                        WHEN s.interval_ms < 86400000 THEN s.interval_ms
                        ELSE 86400000
                    END AS BIGINT
                ) * INTERVAL '1 millisecond'
            ) THEN 0
            ELSE 1
        END AS BIGINT
    ),
    now(),
    CAST(s.session_id AS TEXT),
    CAST(
        CASE
            WHEN l.deadline <= now()
            AND w.deadline = CAST(l.deadline AS TEXT) THEN w.age_ms
            ELSE 0
        END AS BIGINT
    )
FROM
    session s
    LEFT JOIN session_lease l ON l.session_id = s.session_id
    LEFT JOIN session_sighting w ON w.session_id = s.session_id;
