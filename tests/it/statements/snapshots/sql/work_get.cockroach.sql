SELECT
    "machine_provided"."machine_id",
    "machine_provided"."provider",
    "machine_provided"."provider_id",
    "machine_provided"."reservation",
    "machine_provided"."address",
    "machine_provided"."location",
    "machine_provided"."status"
FROM
    "machine_provided"
WHERE
    "machine_provided"."machine_id" = $1
LIMIT
    $2;
