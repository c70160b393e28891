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
    "machine_provided"."provider" = $1
    AND "machine_provided"."provider_id" = $2
LIMIT
    $3;

INSERT INTO
    "machine" ("machine_id", "created_at", "fence")
VALUES
    ($1, now(), $2);

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
    ($1, …);
