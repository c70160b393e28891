DELETE FROM
    work
WHERE
    work_id IN ($1)
    AND (machine_id, slot, fence) IN (
        VALUES
            ($2, …))
    AND EXISTS (
        SELECT
            "machine_id"
        FROM
            "machine_provided"
        WHERE
            "machine_provided"."machine_id" = "work"."machine_id"
    )
RETURNING
    work_id;

UPDATE
    "machine_provided"
SET
    "status" = $1
WHERE
    "machine_provided"."machine_id" = $2;
INSERT INTO
    work_history (
        machine_id,
        fence,
        event,
        work_id,
        process,
        slot,
        session_id,
        component_name,
        runtime_info,
        at,
        cause
    )
VALUES
    (
        $3,
        $4,
        $5,
        $6,
        $7,
        $8,
        $9,
        $10,
        $11,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        $12
    );
