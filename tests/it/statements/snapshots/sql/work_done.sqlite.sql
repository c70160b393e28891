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
        $1,
        $2,
        $3,
        $4,
        $5,
        $6,
        $7,
        $8,
        $9,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        $10
    );
