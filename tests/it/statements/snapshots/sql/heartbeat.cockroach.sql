WITH
beat AS (
    UPDATE
        session_lease
    SET
        deadline = greatest(
            NULLIF(deadline, 'infinity') + INTERVAL '1 millisecond',
            (
                now() + CAST($2 AS BIGINT) * INTERVAL '1 millisecond'
            )
        )
    WHERE
        session_id = $1
        AND deadline > now()
    RETURNING
        session_id,
        drain_requested
)
SELECT
    w.work_id,
    w.stop_requested,
    beat.drain_requested
FROM
    beat
    LEFT JOIN work w ON w.session_id = beat.session_id
    AND w.stop_requested IS NOT NULL;
