SELECT
    machine_id,
    process,
    CASE
        WHEN strftime('%Y-%m-%d %H:%M:%f', until) IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', until)
        WHEN until <= strftime('%Y-%m-%d %H:%M:%f', 'now') THEN '0001-01-01 00:00:00.000'
    END AS until,
    cause,
    attempts,
    last_interval_seconds,
    lower(
        substr(hex(machine_id), 1, 8) || '-' || substr(hex(machine_id), 9, 4) || '-' || substr(hex(machine_id), 13, 4) || '-' || substr(hex(machine_id), 17, 4) || '-' || substr(hex(machine_id), 21, 12)
    ) || ' ' || process AS row_name
FROM
    work_backoff
ORDER BY
    machine_id,
    process
LIMIT
    $1;
