SELECT
    name
FROM
    process
ORDER BY
    name;

DELETE FROM
    work_backoff
WHERE
    machine_id = $1
    AND process = $2;
