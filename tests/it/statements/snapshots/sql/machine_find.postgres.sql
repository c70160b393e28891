SELECT
    "machine_provided"."machine_id"
FROM
    "machine_provided"
WHERE
    "machine_provided"."provider" = $1
    AND "machine_provided"."provider_id" = $2
LIMIT
    $3;
