SELECT
    provider,
    provider_id
FROM
    machine_provided
WHERE
    machine_id = $1;

UPDATE
    machine
SET
    fence = greatest(
        machine.fence + 1,
        CAST(extract(epoch
                FROM
                    now()) * 1000 AS BIGINT)
    )
WHERE
    machine_id = $1
    AND fence < $2;

SELECT
    w.process,
    s.component_name
FROM
    work w
    JOIN session s ON s.session_id = w.session_id
WHERE
    w.machine_id = $1
ORDER BY
    w.slot;

SELECT
    CAST(c.relname AS TEXT),
    CAST(a.attname AS TEXT)
FROM
    pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = k.conrelid
    AND a.attnum = k.conkey [ 1 ]
WHERE
    k.contype = 'f'
    AND k.confdeltype IN ('a', 'r')
    AND has_table_privilege(c.oid, 'SELECT')
    AND k.confrelid = CAST(to_regclass('machine') AS OID)
    AND n.nspname = current_schema()
ORDER BY
    c.relname,
    a.attname;

DELETE FROM
    machine_provided
WHERE
    machine_id = $1;

DELETE FROM
    machine_agent_started
WHERE
    machine_id = $1;

DELETE FROM
    machine_agent_heartbeat
WHERE
    machine_id = $1;

DELETE FROM
    machine_hardware_report
WHERE
    machine_id = $1;

DELETE FROM
    machine_os_installation_request
WHERE
    machine_id = $1;

DELETE FROM
    machine_os_installation_report
WHERE
    machine_id = $1;

DELETE FROM
    work_backoff
WHERE
    machine_id = $1;

DELETE FROM
    work_hold
WHERE
    machine_id = $1;

DELETE FROM
    machine
WHERE
    machine_id = $1;

INSERT INTO
    operation (
        operation_id,
        at,
        done_by,
        component,
        verb,
        machine_id,
        slot,
        process,
        work_id,
        session_id,
        detail,
        reason,
        ticket
    )
VALUES
    ($1, now(), $2, …);
