SELECT
    session_id
FROM
    session
WHERE
    session_id = $1;

SELECT
    "machine_provided"."machine_id"
FROM
    "machine_provided"
WHERE
    "machine_provided"."provider" = ?
    AND "machine_provided"."provider_id" = ?
LIMIT
    ?;

INSERT INTO
    "machine" ("machine_id", "created_at", "fence")
VALUES
    (?, strftime('%Y-%m-%d %H:%M:%f', 'now'), ?);

INSERT INTO
    "machine_provided" (
        "machine_id",
        "provider",
        "provider_id",
        "reservation",
        "address",
        "location",
        "status"
    )
VALUES
    (?, ?, ?, ?, ?, ?, ?);
