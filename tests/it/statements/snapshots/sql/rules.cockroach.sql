SELECT
    p.name,
    p.slot,
    r.digest,
    r.component,
    CASE
        WHEN r.used_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN r.used_at
        WHEN r.used_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN r.used_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END,
    r.item,
    r.item_machine_id,
    r.clauses
FROM
    process_rule r
    JOIN process p ON p.name = r.process
WHERE
    r.process = $1
ORDER BY
    r.digest;
