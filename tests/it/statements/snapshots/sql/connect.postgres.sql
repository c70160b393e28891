SELECT
    version();

SELECT
    current_setting('transaction_isolation') AS transaction_isolation,
    current_setting('statement_timeout') AS statement_timeout,
    current_setting('lock_timeout') AS lock_timeout,
    current_setting('idle_in_transaction_session_timeout') AS idle_in_transaction_session_timeout,
    current_setting('transaction_read_only') AS read_only,
    CAST(pg_is_in_recovery() AS TEXT) AS standby,
    CASE
        WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN set_config('synchronous_commit', 'on', false)
    END AS raised,
    current_setting('session_replication_role') AS session_replication_role,
    current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes;

SELECT
    least(
        CAST(current_setting('max_connections') AS INTEGER) - CAST(
            current_setting('superuser_reserved_connections') AS INTEGER
        ),
        (
            SELECT
                nullif(datconnlimit, -1)
            FROM
                pg_database
            WHERE
                datname = current_database()
        ),
        (
            SELECT
                nullif(rolconnlimit, -1)
            FROM
                pg_roles
            WHERE
                rolname = current_user
        )
    );

SELECT
    CAST(current_user AS TEXT),
    current_schema() IS NULL,
    (
        SELECT
            has_table_privilege(c.oid, 'SELECT')
        FROM
            pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE
            n.nspname = current_schema()
            AND c.relname = 'seaql_migrations'
    );

SELECT
    version
FROM
    seaql_migrations;

SELECT
    CAST(current_user AS TEXT),
    CAST(w.privilege AS TEXT) || ' on ' || CAST(w.name AS TEXT)
FROM
    (
        VALUES
            ('machine', 'SELECT'),
            ('session', 'SELECT'),
            ('session_lease', 'SELECT'),
            ('work', 'SELECT'),
            ('work_history', 'SELECT'),
            ('work_backoff', 'SELECT'),
            ('work_hold', 'SELECT'),
            ('process', 'SELECT'),
            ('machine_provided', 'SELECT'),
            ('machine_agent_started', 'SELECT'),
            ('machine_agent_heartbeat', 'SELECT'),
            ('machine_hardware_report', 'SELECT'),
            ('machine_os_installation_request', 'SELECT'),
            ('machine_os_installation_report', 'SELECT'),
            ('work_candidate', 'SELECT'),
            ('work_retrieval', 'SELECT'),
            ('session_sighting', 'SELECT'),
            ('process_rule', 'SELECT'),
            ('operation', 'SELECT'),
            ('process_pause', 'SELECT')
    ) AS w (name, privilege)
    JOIN pg_class c ON c.relname = w.name
    JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE
    n.nspname = current_schema()
    AND NOT has_table_privilege(c.oid, w.privilege);
