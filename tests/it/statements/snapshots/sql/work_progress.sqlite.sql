UPDATE
    work
SET
    progress = $1
WHERE
    machine_id = $2
    AND slot = $3
    AND fence = $4
    AND work_id = $5;
