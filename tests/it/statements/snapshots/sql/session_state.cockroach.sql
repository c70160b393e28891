SELECT
    session_id
FROM
    session
WHERE
    session_id = $1;

SELECT
    "machine_id"
FROM
    "machine"
WHERE
    "machine"."machine_id" IN ($1);

SELECT
    "machine_id"
FROM
    "machine_agent_started"
WHERE
    "machine_id" = $1
    AND "public_key" = $2
ORDER BY
    "machine_id" ASC
FOR UPDATE;

INSERT INTO
    "machine_agent_heartbeat" ("machine_id", "at")
VALUES
    ($1, now())
ON CONFLICT
    ("machine_id")
DO UPDATE SET
    "at" = "excluded"."at";
