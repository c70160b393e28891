SET
    TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT
    process,
    CASE
        WHEN until < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN until <= TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN until
    END AS until,
    reason,
    paused_by,
    CASE
        WHEN paused_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN paused_at
        WHEN paused_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN paused_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS paused_at,
    ticket
FROM
    process_pause
WHERE
    (
        until IS NULL
        OR until > now()
    );

SELECT
    p.name,
    p.slot,
    p.description,
    p.cool_down_ms,
    CASE
        WHEN p.registered_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN p.registered_at
        WHEN p.registered_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN p.registered_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS registered_at,
    p.registered_by,
    COALESCE(r.rules, 0) AS rules,
    CASE
        WHEN r.used_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN r.used_at
        WHEN r.used_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN r.used_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS used_at,
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
                OR h.until > now()
            )
    ) AS held,
    now() AS as_of
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
                        WHEN until > now() THEN 1
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
