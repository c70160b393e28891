DELETE FROM
    work
WHERE
    work_id IN ($1)
    AND (machine_id, slot, fence) IN (
        VALUES
            ($2, …))
RETURNING
    work_id;

INSERT INTO
    "machine_agent_started" ("machine_id", "at", "public_key")
VALUES
    ($1, strftime('%Y-%m-%d %H:%M:%f', 'now'), $2)
ON CONFLICT
    ("machine_id")
DO UPDATE SET
    "at" = "excluded"."at",
    "public_key" = "excluded"."public_key";
INSERT INTO
    "machine_agent_heartbeat" ("machine_id", "at")
VALUES
    ($3, strftime('%Y-%m-%d %H:%M:%f', 'now'))
ON CONFLICT
    ("machine_id")
DO UPDATE SET
    "at" = "excluded"."at";
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
        $4,
        $5,
        $6,
        $7,
        $8,
        $9,
        $10,
        $11,
        $12,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        $13
    );
