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
    fence = max(
        machine.fence + 1,
        CAST(unixepoch('subsec') * 1000 AS INTEGER)
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
    t.name,
    k."from"
FROM
    sqlite_master AS t
    JOIN pragma_foreign_key_list(t.name) AS k
WHERE
    t.type = 'table'
    AND k."table" = 'machine'
    AND k.on_delete IN ('NO ACTION', 'RESTRICT')
ORDER BY
    t.name,
    k."from";

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
    (
        $1,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        $2,
        …
    );
