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

SELECT
    session_id
FROM
    session
WHERE
    session_id IN ($1);

INSERT INTO
    session_sighting (session_id, deadline, age_ms)
VALUES
    ($1, …)
ON CONFLICT
    (session_id)
DO UPDATE SET
    deadline = excluded.deadline,
    age_ms = CASE
        WHEN session_sighting.deadline = excluded.deadline
        AND session_sighting.age_ms > excluded.age_ms THEN session_sighting.age_ms
        ELSE excluded.age_ms
    END;

SELECT
    l.session_id,
    CASE
        WHEN l.deadline IS NOT NULL THEN hex(l.deadline)
    END,
    CAST(
        CASE
            WHEN l.deadline BETWEEN strftime('%Y-%m-%d %H:%M:%f', 'now') AND strftime(
                '%Y-%m-%d %H:%M:%f',
                'now',
                (
                    (
                        SELECT
                            CASE
                                WHEN s.interval_ms < 86400000 THEN s.interval_ms
                                ELSE 86400000
                            END
                        FROM
                            session s
                        WHERE
                            s.session_id = l.session_id
                    ) / 1000.0
                ) || ' seconds'
            ) THEN 1
            ELSE 0
        END AS BIGINT
    )
FROM
    session_lease l
WHERE
    l.session_id IN ($1);

SELECT
    session_id,
    machine_id,
    slot
FROM
    work
WHERE
    session_id IN ($1);

SELECT
    session_id,
    CAST(COUNT(work_id) AS BIGINT)
FROM
    work
WHERE
    session_id IN ($1)
GROUP BY
    session_id;

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
SELECT
    w.machine_id,
    w.fence,
    CAST($1 AS TEXT),
    w.work_id,
    w.process,
    w.slot,
    w.session_id,
    s.component_name,
    s.runtime_info,
    strftime('%Y-%m-%d %H:%M:%f', 'now'),
    CAST($2 AS TEXT)
FROM
    work w
    JOIN session s ON s.session_id = w.session_id
WHERE
    w.session_id IN ($3);

INSERT INTO
    work_hold (
        machine_id,
        slot,
        until,
        reason,
        placed_by,
        placed_at
    )
SELECT
    w.machine_id,
    w.slot,
    strftime(
        '%Y-%m-%d %H:%M:%f',
        'now',
        (
            (
                CASE
                    WHEN p.cool_down_ms > 3162240000000 THEN 3162240000000
                    ELSE p.cool_down_ms
                END
            ) / 1000.0
        ) || ' seconds'
    ),
    CAST($1 AS TEXT) || lower(
        substr(hex(w.session_id), 1, 8) || '-' || substr(hex(w.session_id), 9, 4) || '-' || substr(hex(w.session_id), 13, 4) || '-' || substr(hex(w.session_id), 17, 4) || '-' || substr(hex(w.session_id), 21, 12)
    ),
    CAST($2 AS TEXT),
    strftime('%Y-%m-%d %H:%M:%f', 'now')
FROM
    work w
    JOIN process p ON p.name = w.process
WHERE
    p.cool_down_ms > 0
    AND w.session_id IN ($3)
ON CONFLICT
    (machine_id, slot)
DO UPDATE SET
    until = excluded.until,
    reason = excluded.reason,
    placed_by = excluded.placed_by,
    placed_at = excluded.placed_at,
    ticket = NULL
WHERE
    work_hold.until < excluded.until;

DELETE FROM
    work
WHERE
    session_id IN ($1);

DELETE FROM
    session
WHERE
    session_id IN ($1);
