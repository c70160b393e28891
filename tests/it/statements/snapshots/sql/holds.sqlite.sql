SELECT
    machine_id,
    slot,
    CASE
        WHEN strftime('%Y-%m-%d %H:%M:%f', until) IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', until)
        WHEN until <= strftime('%Y-%m-%d %H:%M:%f', 'now') THEN '0001-01-01 00:00:00.000'
    END AS until,
    reason,
    placed_by,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', placed_at),
        placed_at
    ) AS placed_at,
    ticket,
    lower(
        substr(hex(machine_id), 1, 8) || '-' || substr(hex(machine_id), 9, 4) || '-' || substr(hex(machine_id), 13, 4) || '-' || substr(hex(machine_id), 17, 4) || '-' || substr(hex(machine_id), 21, 12)
    ) || ' ' || slot AS row_name
FROM
    work_hold
ORDER BY
    machine_id,
    slot
LIMIT
    $1;
