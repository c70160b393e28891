SELECT
    session_id
FROM
    session
WHERE
    session_id = $1
FOR KEY SHARE;

SELECT
    work_id
FROM
    work
WHERE
    machine_id = $1
    AND slot = $2
    AND fence = $3
    AND work_id = $4
FOR KEY SHARE;
