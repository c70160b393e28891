-- The least that each role of a control plane needs. Run it once, after the first `bmdb-migration up`, as an administrator of the database:
--   psql "$ADMIN_URL" -f migration/grants.sql
-- CockroachDB and PostgreSQL take it as it is; each statement stands alone. Your own tags need grants of your own.

-- Runs bmdb-migration, and owns what it makes.
CREATE ROLE bmdb_migrator LOGIN;
-- What components connect as. It can add to the history and never change it.
CREATE ROLE bmdb_component LOGIN;
-- What consoles and people connect as. It can only look.
CREATE ROLE bmdb_console LOGIN;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO bmdb_migrator;
GRANT USAGE ON SCHEMA public TO bmdb_component, bmdb_console;

GRANT SELECT ON TABLE seaql_migrations TO bmdb_component;
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE machine, session, session_lease, session_sighting, work, work_backoff, work_hold, work_candidate, work_retrieval, process TO bmdb_component;
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE machine_provided, machine_agent_started, machine_agent_heartbeat, machine_hardware_report, machine_os_installation_request, machine_os_installation_report TO bmdb_component;
GRANT SELECT, INSERT ON TABLE work_history TO bmdb_component;

GRANT SELECT ON ALL TABLES IN SCHEMA public TO bmdb_console;
ALTER DEFAULT PRIVILEGES FOR ROLE bmdb_migrator IN SCHEMA public GRANT SELECT ON TABLES TO bmdb_console;
ALTER ROLE bmdb_console SET default_transaction_read_only = on;
