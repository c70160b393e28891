SELECT
    session_id
FROM
    session
WHERE
    session_id = $1
FOR KEY SHARE;

DELETE FROM
    "machine_hardware_report"
WHERE
    "machine_hardware_report"."machine_id" = $1;
