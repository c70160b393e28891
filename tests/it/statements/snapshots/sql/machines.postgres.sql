SELECT
    m.machine_id,
    CASE
        WHEN m.created_at BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN m.created_at
        WHEN m.created_at < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        WHEN m.created_at > TIMESTAMPTZ '9999-12-31 23:59:59.999+00' THEN TIMESTAMPTZ '9999-12-31 23:59:59.999+00'
    END AS created_at,
    m.fence,
    p.provider,
    p.provider_id,
    p.address,
    p.location,
    now() AS as_of,
    CAST(m.machine_id AS TEXT) AS row_name
FROM
    machine m
    LEFT JOIN machine_provided p ON p.machine_id = m.machine_id
WHERE
    m.machine_id > $1
    AND m.machine_id IN (
        SELECT
            machine_id
        FROM
            machine_provided
        WHERE
            provider_id = $2
        UNION
        SELECT
            machine_id
        FROM
            machine_provided
        WHERE
            address = $3
    )
    AND m.machine_id IN (
        SELECT DISTINCT
            machine_id
        FROM
            work_hold
        WHERE
            (
                until IS NULL
                OR until > now()
            )
            AND slot IN (
                '*',
                (
                    SELECT
                        slot
                    FROM
                        process
                    WHERE
                        name = $4
                )
            )
    )
ORDER BY
    m.machine_id
LIMIT
    $5;
