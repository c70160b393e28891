DELETE FROM
    work_hold
WHERE
    machine_id = $1
    AND slot = $2;
