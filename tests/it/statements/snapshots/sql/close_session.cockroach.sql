SELECT
    session_id
FROM
    session
WHERE
    session_id = $1
FOR UPDATE;

SELECT
    machine_id
FROM
    work
WHERE
    session_id = $1
FOR UPDATE;

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
SELECT
    w.machine_id,
    w.fence,
    CAST($1 AS TEXT),
    w.work_id,
    w.process,
    w.slot,
    w.session_id,
    s.component_name,
    s.runtime_info,
    now(),
    CAST($2 AS TEXT)
FROM
    work w
    JOIN session s ON s.session_id = w.session_id
WHERE
    w.session_id IN ($3);

DELETE FROM
    session
WHERE
    session_id IN ($1);
