UPDATE
    session_lease
SET
    deadline = strftime('%Y-%m-%d %H:%M:%f', 'now')
WHERE
    session_id = $1
    AND deadline > strftime('%Y-%m-%d %H:%M:%f', 'now');

SELECT
    component_name,
    runtime_info
FROM
    session
WHERE
    session_id = $1;

SELECT
    machine_id,
    process
FROM
    work
WHERE
    session_id = $1
ORDER BY
    machine_id;
