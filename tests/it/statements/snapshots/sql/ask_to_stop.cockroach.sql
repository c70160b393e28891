UPDATE
    work
SET
    stop_requested = $2
WHERE
    work_id = $1;
