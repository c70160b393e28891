-- Makes PostgreSQL refuse the schema changes that CockroachDB cannot do, or that migrations must not do (see migration/src/lib.rs). Every test
-- database has it. Sessions with `bmdb.trap=off`, which are those that tests themselves look and tamper through, go free.
CREATE SCHEMA trap;
GRANT USAGE ON SCHEMA trap TO PUBLIC;

CREATE FUNCTION trap.off() RETURNS boolean LANGUAGE sql AS $$ SELECT coalesce(current_setting('bmdb.trap', true), '') = 'off' $$;

CREATE FUNCTION trap.refuse(why text, what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'trap: %: %', why, what;
END $$;

-- What the statement's text says.
CREATE FUNCTION trap.before() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    text text := regexp_replace(regexp_replace(current_query(), '''([^'']|'''')*''', '''''', 'g'), '\s+', ' ', 'g');
BEGIN
    IF trap.off() THEN RETURN; END IF;
    -- CockroachDB commits at each change of the schema, or does not undo it with the rest.
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN PERFORM trap.refuse('after other writes of its transaction', tg_tag); END IF;
    IF tg_tag NOT IN ('CREATE TABLE', 'CREATE INDEX', 'DROP TABLE', 'DROP INDEX', 'ALTER TABLE', 'GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES') THEN
        PERFORM trap.refuse('not among what migrations do', tg_tag);
    END IF;
    IF tg_tag LIKE '% TABLE' OR tg_tag LIKE '% INDEX' THEN
        IF text !~* '\mIF (NOT )?EXISTS\M' THEN PERFORM trap.refuse('cannot be repeated', text); END IF;
        IF text ~* '\m(ADD|DROP) COLUMN (?!IF )' THEN PERFORM trap.refuse('cannot be repeated', text); END IF;
    END IF;
    IF tg_tag LIKE 'DROP %' AND text ~* '\mCASCADE\M' THEN PERFORM trap.refuse('takes others along', text); END IF;
    IF tg_tag = 'ALTER TABLE' THEN
        IF text ~* '\m(RENAME|TYPE)\M' THEN PERFORM trap.refuse('an older component would not know it', text); END IF;
        IF text ~* ', *(ADD|DROP|ALTER|SET|RESET|VALIDATE)\M' THEN PERFORM trap.refuse('several changes at once', text); END IF;
    END IF;
END $$;

-- What has come of it.
CREATE FUNCTION trap.after() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    made record;
    wrong text;
BEGIN
    IF trap.off() THEN RETURN; END IF;
    PERFORM set_config('bmdb.ddl', pg_current_xact_id()::text, true);
    FOR made IN SELECT classid, objid, command_tag, object_identity FROM pg_event_trigger_ddl_commands() LOOP
        IF made.command_tag LIKE '% SEQUENCE' THEN PERFORM trap.refuse('a sequence', made.object_identity); END IF;
        CONTINUE WHEN made.classid IS DISTINCT FROM 'pg_class'::regclass OR made.command_tag NOT LIKE '% TABLE' AND made.command_tag NOT LIKE '% INDEX';
        SELECT 'not a plain table or index' INTO wrong FROM pg_class
            WHERE oid = made.objid AND (relkind NOT IN ('r', 'i') OR relpersistence <> 'p' OR relispartition OR reloftype <> 0
                OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = made.objid));
        IF FOUND THEN PERFORM trap.refuse(wrong, made.object_identity); END IF;
        SELECT 'no key' INTO wrong FROM pg_class
            WHERE oid = made.objid AND relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = made.objid AND indisprimary);
        IF FOUND THEN PERFORM trap.refuse(wrong, made.object_identity); END IF;
        -- The records of steps, with their varchar, are SeaORM's.
        SELECT format('a column of type %s', format_type(atttypid, atttypmod)) INTO wrong FROM pg_attribute
            WHERE attrelid = made.objid AND attnum > 0 AND NOT attisdropped AND made.object_identity NOT LIKE '%.seaql_migrations' AND made.object_identity <> 'public.my_migrations'
                AND (SELECT relkind = 'r' FROM pg_class WHERE oid = made.objid)
                AND atttypid NOT IN ('uuid'::regtype, 'text'::regtype, 'bigint'::regtype, 'boolean'::regtype, 'timestamptz'::regtype,
                    'bytea'::regtype, 'jsonb'::regtype, 'double precision'::regtype);
        IF FOUND THEN PERFORM trap.refuse(wrong, made.object_identity); END IF;
        SELECT format('a generated or computed column %s', attname) INTO wrong FROM pg_attribute
            WHERE attrelid = made.objid AND attnum > 0 AND NOT attisdropped AND (attidentity <> '' OR attgenerated <> '');
        IF FOUND THEN PERFORM trap.refuse(wrong, made.object_identity); END IF;
        -- CockroachDB drops a unique constraint only with CASCADE; a unique index is made and dropped like any other.
        SELECT format('the constraint %s', pg_get_constraintdef(oid)) INTO wrong FROM pg_constraint
            WHERE conrelid = made.objid AND (contype IN ('x', 'u', 't') OR condeferrable);
        IF FOUND THEN PERFORM trap.refuse(wrong, made.object_identity); END IF;
        SELECT 'an index of another kind than a B-tree, or one that holds NULLs for equal' INTO wrong
            FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
            WHERE indexrelid = made.objid AND (amname <> 'btree' OR indnullsnotdistinct);
        IF FOUND THEN PERFORM trap.refuse(wrong, made.object_identity); END IF;
        -- All writers would meet in the range of the latest time.
        SELECT format('an index that begins with the time %s', attname) INTO wrong
            FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
            WHERE indexrelid = made.objid AND atttypid = 'timestamptz'::regtype;
        IF FOUND THEN PERFORM trap.refuse(wrong, made.object_identity); END IF;
        IF made.command_tag = 'CREATE TABLE' AND made.object_identity = 'public.seaql_migrations' THEN
            SET LOCAL bmdb.trap = off;
            CREATE OR REPLACE TRIGGER trap AFTER INSERT OR DELETE ON public.seaql_migrations EXECUTE FUNCTION trap.apart();
            SET LOCAL bmdb.trap = on;
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION trap.apart() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('bmdb.ddl', true) = pg_current_xact_id()::text THEN
        PERFORM trap.refuse('the record of a step in the transaction of its change', tg_op);
    END IF;
    RETURN NULL;
END $$;

CREATE EVENT TRIGGER trap_before ON ddl_command_start EXECUTE FUNCTION trap.before();
CREATE EVENT TRIGGER trap_after ON ddl_command_end EXECUTE FUNCTION trap.after();
