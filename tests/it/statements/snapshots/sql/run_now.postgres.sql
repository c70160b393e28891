SELECT
    name
FROM
    process
ORDER BY
    name;

UPDATE
    work_backoff
SET
    until = now()
WHERE
    machine_id = $1
    AND process = $2
    AND (
        until IS NULL
        OR until > now()
    );
