SELECT
    s.session_id,
    s.component_name,
    s.runtime_info,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', s.created_at),
        s.created_at
    ) AS created_at,
    s.interval_ms,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', l.deadline),
        l.deadline
    ) AS deadline,
    strftime('%Y-%m-%d %H:%M:%f', 'now') AS as_of,
    (
        SELECT
            CAST(count(w.work_id) AS BIGINT)
        FROM
            work w
        WHERE
            w.session_id = s.session_id
    ) AS works,
    l.drain_requested,
    lower(
        substr(hex(s.session_id), 1, 8) || '-' || substr(hex(s.session_id), 9, 4) || '-' || substr(hex(s.session_id), 13, 4) || '-' || substr(hex(s.session_id), 17, 4) || '-' || substr(hex(s.session_id), 21, 12)
    ) AS row_name
FROM
    session s
    LEFT JOIN session_lease l ON l.session_id = s.session_id
ORDER BY
    s.session_id
LIMIT
    $1;
