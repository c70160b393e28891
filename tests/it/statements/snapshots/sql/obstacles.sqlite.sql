SELECT
    "process"."name",
    "process"."slot",
    "process"."description",
    "process"."cool_down_ms",
    "process"."registered_at",
    "process"."registered_by"
FROM
    "process"
WHERE
    "process"."name" = ?
LIMIT
    ?;

SELECT
    machine_id
FROM
    machine
WHERE
    machine_id = $1;

SELECT
    process,
    CASE
        WHEN strftime('%Y-%m-%d %H:%M:%f', until) IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', until)
        WHEN until <= strftime('%Y-%m-%d %H:%M:%f', 'now') THEN '0001-01-01 00:00:00.000'
    END AS until,
    reason,
    paused_by,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', paused_at),
        paused_at
    ) AS paused_at,
    ticket
FROM
    process_pause
WHERE
    (
        until IS NULL
        OR until > strftime('%Y-%m-%d %H:%M:%f', 'now')
    )
    AND process = $1;

SELECT
    w.machine_id,
    w.process,
    w.session_id,
    s.component_name,
    s.runtime_info,
    w.fence,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', w.claimed_at),
        w.claimed_at
    ),
    CASE
        WHEN strftime('%Y-%m-%d %H:%M:%f', l.deadline) IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', l.deadline)
        WHEN l.deadline <= strftime('%Y-%m-%d %H:%M:%f', 'now') THEN '0001-01-01 00:00:00.000'
    END,
    w.progress,
    w.stop_requested
FROM
    work w
    JOIN session s ON s.session_id = w.session_id
    LEFT JOIN session_lease l ON l.session_id = w.session_id
WHERE
    w.slot = $1
    AND w.machine_id IN ($2);

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
WHERE
    process = $1
    AND (
        until IS NULL
        OR until > strftime('%Y-%m-%d %H:%M:%f', 'now')
    )
    AND machine_id IN ($2);

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
WHERE
    slot IN ($1, $2)
    AND (
        until IS NULL
        OR until > strftime('%Y-%m-%d %H:%M:%f', 'now')
    )
    AND machine_id IN ($3)
ORDER BY
    machine_id,
    slot;
