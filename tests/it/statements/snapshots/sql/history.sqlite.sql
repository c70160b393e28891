SELECT
    machine_id,
    fence,
    event,
    work_id,
    process,
    slot,
    session_id,
    component_name,
    runtime_info,
    ifnull (strftime('%Y-%m-%d %H:%M:%f', at), at) AS at,
    cause,
    lower(
        substr(hex(machine_id), 1, 8) || '-' || substr(hex(machine_id), 9, 4) || '-' || substr(hex(machine_id), 13, 4) || '-' || substr(hex(machine_id), 17, 4) || '-' || substr(hex(machine_id), 21, 12)
    ) || ' ' || CAST(fence AS TEXT) || ' ' || event AS row_name
FROM
    work_history
WHERE
    machine_id = $1
ORDER BY
    fence,
    CASE
        WHEN event = 'started' THEN 0
        ELSE 1
    END,
    event
LIMIT
    $2;
