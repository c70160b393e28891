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
    work_id,
    stop_requested
FROM
    work
WHERE
    session_id = $1
    AND stop_requested IS NOT NULL;
