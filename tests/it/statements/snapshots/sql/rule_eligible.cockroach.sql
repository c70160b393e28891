WITH
ours AS (
    SELECT
        oid,
        rolname,
        rolsuper
    FROM
        pg_roles
    WHERE
        pg_has_role(CAST(session_user AS TEXT), oid, 'MEMBER')
        OR pg_has_role(CAST(current_user AS TEXT), oid, 'MEMBER')
),
relations AS (
    SELECT
        c.oid,
        c.relname,
        c.relowner
    FROM
        pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE
        c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND n.nspname NOT LIKE 'pg\_%'
        AND n.nspname <> 'information_schema'
),
may (what) AS (
    SELECT
        'everything, as the superuser ' || rolname
    FROM
        ours
    WHERE
        rolsuper
    UNION ALL
    SELECT
        'what the role ' || rolname || ' can'
    FROM
        ours
    WHERE
        rolname LIKE 'pg\_%'
        AND rolname NOT IN (
            'pg_read_all_data',
            'pg_read_all_settings',
            'pg_read_all_stats',
            'pg_stat_scan_tables',
            'pg_monitor'
        )
    UNION ALL
    SELECT
        'what an owner can with ' || relname
    FROM
        relations
        JOIN ours ON ours.oid = relations.relowner
    UNION ALL
    SELECT
        'write ' || relname
    FROM
        relations
        CROSS JOIN ours
    WHERE
        has_table_privilege(
            ours.oid,
            relations.oid,
            'INSERT, UPDATE, DELETE, TRUNCATE'
        )
        OR has_any_column_privilege(ours.oid, relations.oid, 'INSERT, UPDATE')
)
SELECT
    what
FROM
    may
ORDER BY
    what
LIMIT
    8;
