PRAGMA journal_mode = WAL;
PRAGMA foreign_keys = ON;
PRAGMA synchronous = NORMAL;;

SELECT
    s.session_id,
    s.interval_ms,
    CASE
        WHEN l.deadline IS NOT NULL THEN hex(l.deadline)
    END,
    CAST(
        CASE
            WHEN l.deadline BETWEEN strftime('%Y-%m-%d %H:%M:%f', 'now') AND strftime(
                '%Y-%m-%d %H:%M:%f',
                'now',
                (
                    CASE
                        WHEN s.interval_ms < 86400000 THEN s.interval_ms
                        ELSE 86400000
                    END / 1000.0
                ) || ' seconds'
            ) THEN 0
            ELSE 1
        END AS BIGINT
    ),
    strftime('%Y-%m-%d %H:%M:%f', 'now'),
    CASE
        WHEN s.session_id IS NOT NULL THEN hex(s.session_id)
    END,
    CAST(
        CASE
            WHEN l.deadline <= strftime('%Y-%m-%d %H:%M:%f', 'now')
            AND w.deadline = CASE
                WHEN l.deadline IS NOT NULL THEN hex(l.deadline)
            END THEN w.age_ms
            ELSE 0
        END AS BIGINT
    )
FROM
    session s
    LEFT JOIN session_lease l ON l.session_id = s.session_id
    LEFT JOIN session_sighting w ON w.session_id = s.session_id;
