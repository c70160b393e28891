SELECT
    m.machine_id,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', m.created_at),
        m.created_at
    ) AS created_at,
    m.fence,
    p.provider,
    p.provider_id,
    p.address,
    p.location,
    strftime('%Y-%m-%d %H:%M:%f', 'now') AS as_of,
    lower(
        substr(hex(m.machine_id), 1, 8) || '-' || substr(hex(m.machine_id), 9, 4) || '-' || substr(hex(m.machine_id), 13, 4) || '-' || substr(hex(m.machine_id), 17, 4) || '-' || substr(hex(m.machine_id), 21, 12)
    ) AS row_name
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
                OR until > strftime('%Y-%m-%d %H:%M:%f', 'now')
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
