SELECT
    machine_id,
    slot,
    CASE
        WHEN until < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN until <= TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN until
    END AS until,
    reason,
    placed_by,
    CASE
        WHEN placed_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN placed_at
        WHEN placed_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN placed_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS placed_at,
    ticket,
    CAST(machine_id AS TEXT) || ' ' || slot AS row_name
FROM
    work_hold
ORDER BY
    machine_id,
    slot
LIMIT
    $1;
