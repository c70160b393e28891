SELECT
    session_id
FROM
    session
WHERE
    session_id = $1;

INSERT INTO
    "machine_hardware_report" ("machine_id", "raw")
VALUES
    (?, ?)
ON CONFLICT
    ("machine_id")
DO UPDATE SET
    "raw" = "excluded"."raw";
