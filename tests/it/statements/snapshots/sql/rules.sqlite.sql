SELECT
    p.name,
    p.slot,
    r.digest,
    r.component,
    ifnull (
        strftime('%Y-%m-%d %H:%M:%f', r.used_at),
        r.used_at
    ),
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
