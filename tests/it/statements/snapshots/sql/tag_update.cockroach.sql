SELECT
    session_id
FROM
    session
WHERE
    session_id = $1;

UPDATE
    "machine_hardware_report"
SET
    "raw" = $1
WHERE
    "machine_hardware_report"."machine_id" = $2;
