SELECT
    session_id
FROM
    session
WHERE
    session_id = $1
FOR KEY SHARE;

INSERT INTO
    "machine_hardware_report" ("machine_id", "raw")
VALUES
    ($1, $2)
ON CONFLICT
    ("machine_id")
DO UPDATE SET
    "raw" = "excluded"."raw";
