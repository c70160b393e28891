SELECT
    session_id
FROM
    session
WHERE
    session_id = $1;

UPDATE
    machine
SET
    fence = max(
        machine.fence + 1,
        CAST(unixepoch('subsec') * 1000 AS INTEGER)
    )
WHERE
    machine_id = $1
    AND fence < $2;
