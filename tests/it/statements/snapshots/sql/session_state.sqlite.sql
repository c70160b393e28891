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
    "machine"."machine_id" IN (?);

SELECT
    "machine_id"
FROM
    "machine_agent_started"
WHERE
    "machine_id" = ?
    AND "public_key" = ?
ORDER BY
    "machine_id" ASC;

INSERT INTO
    "machine_agent_heartbeat" ("machine_id", "at")
VALUES
    (?, strftime('%Y-%m-%d %H:%M:%f', 'now'))
ON CONFLICT
    ("machine_id")
DO UPDATE SET
    "at" = "excluded"."at";
