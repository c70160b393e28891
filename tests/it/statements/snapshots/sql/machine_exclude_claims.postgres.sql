SELECT
    session_id
FROM
    session
WHERE
    session_id = $1
FOR KEY SHARE;

UPDATE
    machine
SET
    fence = greatest(
        machine.fence + 1,
        CAST(extract(epoch
                FROM
                    now()) * 1000 AS BIGINT)
    )
WHERE
    machine_id = $1
    AND fence < $2;
