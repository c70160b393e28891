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
    );

SELECT
    p.name,
    p.slot,
    p.description,
    p.cool_down_ms,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', p.registered_at),
        p.registered_at
    ) AS registered_at,
    p.registered_by,
    COALESCE(r.rules, 0) AS rules,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', r.used_at),
        r.used_at
    ) AS used_at,
    COALESCE(w.works, 0) AS works,
    COALESCE(b.backing_off, 0) AS backing_off,
    COALESCE(b.parked, 0) AS parked,
    (
        SELECT
            CAST(count(DISTINCT h.machine_id) AS BIGINT)
        FROM
            work_hold h
        WHERE
            h.slot IN (p.slot, '*')
            AND (
                h.until IS NULL
                OR h.until > strftime('%Y-%m-%d %H:%M:%f', 'now')
            )
    ) AS held,
    strftime('%Y-%m-%d %H:%M:%f', 'now') AS as_of
FROM
    process p
    LEFT JOIN (
        SELECT
            process,
            CAST(count(digest) AS BIGINT) AS rules,
            max(used_at) AS used_at
        FROM
            process_rule
        GROUP BY
            process
    ) r ON r.process = p.name
    LEFT JOIN (
        SELECT
            process,
            CAST(count(work_id) AS BIGINT) AS works
        FROM
            work
        GROUP BY
            process
    ) w ON w.process = p.name
    LEFT JOIN (
        SELECT
            process,
            CAST(
                sum(
                    CASE
                        WHEN until > strftime('%Y-%m-%d %H:%M:%f', 'now') THEN 1
                        ELSE 0
                    END
                ) AS BIGINT
            ) AS backing_off,
            CAST(
                sum(
                    CASE
                        WHEN until IS NULL THEN 1
                        ELSE 0
                    END
                ) AS BIGINT
            ) AS parked
        FROM
            work_backoff
        GROUP BY
            process
    ) b ON b.process = p.name
ORDER BY
    p.slot,
    p.name;
