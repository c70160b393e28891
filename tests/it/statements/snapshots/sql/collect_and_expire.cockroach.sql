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
    session_id
FROM
    session
WHERE
    session_id IN ($1)
FOR UPDATE
    OF session;

SELECT
    l.session_id,
    CAST(l.deadline AS TEXT),
    CAST(
        CASE
            WHEN l.deadline BETWEEN now()
            AND (
                now() + CAST(
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
                    ) AS BIGINT
                ) * INTERVAL '1 millisecond'
            ) THEN 1
            ELSE 0
        END AS BIGINT
    )
FROM
    session_lease l
WHERE
    l.session_id IN ($1)
FOR UPDATE
    OF l;

SELECT
    session_id,
    machine_id,
    slot
FROM
    work
WHERE
    session_id IN ($1)
FOR UPDATE
    OF work;

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
    now(),
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
    (
        now() + CAST(
            (
                CASE
                    WHEN p.cool_down_ms > 3162240000000 THEN 3162240000000
                    ELSE p.cool_down_ms
                END
            ) AS BIGINT
        ) * INTERVAL '1 millisecond'
    ),
    CAST($1 AS TEXT) || CAST(w.session_id AS TEXT),
    CAST($2 AS TEXT),
    now()
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
