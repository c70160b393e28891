SELECT
    w.work_id,
    w.machine_id,
    p.provider_id,
    w.slot,
    w.process,
    w.fence,
    w.session_id,
    s.component_name,
    s.runtime_info,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', w.claimed_at),
        w.claimed_at
    ) AS claimed_at,
    CASE
        WHEN strftime('%Y-%m-%d %H:%M:%f', l.deadline) IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', l.deadline)
        WHEN l.deadline <= strftime('%Y-%m-%d %H:%M:%f', 'now') THEN '0001-01-01 00:00:00.000'
    END AS deadline,
    strftime('%Y-%m-%d %H:%M:%f', 'now') AS as_of,
    w.progress,
    w.stop_requested,
    lower(
        substr(hex(w.machine_id), 1, 8) || '-' || substr(hex(w.machine_id), 9, 4) || '-' || substr(hex(w.machine_id), 13, 4) || '-' || substr(hex(w.machine_id), 17, 4) || '-' || substr(hex(w.machine_id), 21, 12)
    ) || ' ' || w.slot AS row_name
FROM
    work w
    JOIN session s ON s.session_id = w.session_id
    LEFT JOIN session_lease l ON l.session_id = w.session_id
    LEFT JOIN machine_provided p ON p.machine_id = w.machine_id
WHERE
    w.fence > $1
ORDER BY
    w.machine_id,
    w.slot
LIMIT
    $2;
