UPDATE
    session_lease
SET
    deadline = max(
        ifnull (
            strftime('%Y-%m-%d %H:%M:%f', deadline, '+0.001 seconds'),
            ''
        ),
        strftime(
            '%Y-%m-%d %H:%M:%f',
            'now',
            ($2 / 1000.0) || ' seconds'
        )
    )
WHERE
    session_id = $1
    AND deadline > strftime('%Y-%m-%d %H:%M:%f', 'now');

SELECT
    w.work_id,
    w.stop_requested,
    l.drain_requested
FROM
    session_lease l
    LEFT JOIN work w ON w.session_id = l.session_id
    AND w.stop_requested IS NOT NULL
WHERE
    l.session_id = $1;
