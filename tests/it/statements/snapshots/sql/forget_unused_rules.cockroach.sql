SELECT
    s.process
FROM
    work_retrieval s
WHERE
    s.began_at < (
        now() + CAST(-86400000 AS BIGINT) * INTERVAL '1 millisecond'
    )
    AND NOT EXISTS (
        SELECT
            r.digest
        FROM
            process_rule r
        WHERE
            r.process || '@' || r.digest = s.process
            AND r.used_at >= (
                now() + CAST(-86400000 AS BIGINT) * INTERVAL '1 millisecond'
            )
    )
ORDER BY
    s.process;

DELETE FROM
    work_candidate
WHERE
    process = $1
    AND machine_id IN (
        SELECT
            machine_id
        FROM
            work_candidate
        WHERE
            process = $1
        ORDER BY
            machine_id
        LIMIT
            1000
    );

DELETE FROM
    work_retrieval
WHERE
    process = $1
    AND began_at < (
        now() + CAST(-86400000 AS BIGINT) * INTERVAL '1 millisecond'
    );

DELETE FROM
    process_rule
WHERE
    used_at < (
        now() + CAST(-86400000 AS BIGINT) * INTERVAL '1 millisecond'
    );
