PRAGMA locking_mode = EXCLUSIVE;
PRAGMA foreign_keys = ON;;

SELECT
    name
FROM
    sqlite_master;

PRAGMA journal_mode = WAL;
PRAGMA foreign_keys = ON;
PRAGMA synchronous = FULL;;

PRAGMA journal_mode = WAL;
PRAGMA foreign_keys = ON;
PRAGMA synchronous = NORMAL;;

SELECT
    name
FROM
    sqlite_master
WHERE
    type = 'table'
    AND name = 'seaql_migrations';

SELECT
    version
FROM
    seaql_migrations;
