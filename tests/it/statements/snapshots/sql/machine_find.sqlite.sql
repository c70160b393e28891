SELECT
    "machine_provided"."machine_id"
FROM
    "machine_provided"
WHERE
    "machine_provided"."provider" = ?
    AND "machine_provided"."provider_id" = ?
LIMIT
    ?;
