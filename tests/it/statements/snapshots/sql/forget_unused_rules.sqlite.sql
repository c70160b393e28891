SELECT
    s.process
FROM
    work_retrieval s
WHERE
    s.began_at < strftime(
        '%Y-%m-%d %H:%M:%f',
        'now',
        (-86400000 / 1000.0) || ' seconds'
    )
    AND NOT EXISTS (
        SELECT
            r.digest
        FROM
            process_rule r
        WHERE
            r.process || '@' || r.digest = s.process
            AND r.used_at >= strftime(
                '%Y-%m-%d %H:%M:%f',
                'now',
                (-86400000 / 1000.0) || ' seconds'
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
    AND began_at < strftime(
        '%Y-%m-%d %H:%M:%f',
        'now',
        (-86400000 / 1000.0) || ' seconds'
    );

DELETE FROM
    process_rule
WHERE
    used_at < strftime(
        '%Y-%m-%d %H:%M:%f',
        'now',
        (-86400000 / 1000.0) || ' seconds'
    );
