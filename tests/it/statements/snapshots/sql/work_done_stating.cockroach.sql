WITH
to_end (machine_id, slot, process, fence, work_id) AS (
    VALUES
        (
            CAST($1 AS UUID),
            CAST($2 AS TEXT),
            CAST($3 AS TEXT),
            CAST($4 AS BIGINT),
            CAST($5 AS UUID)
        )
),
ended AS (
    DELETE FROM
        work
    USING
        to_end
    WHERE
        work.machine_id = to_end.machine_id
        AND work.slot = to_end.slot
        AND work.fence = to_end.fence
        AND work.work_id = to_end.work_id
    RETURNING
        work.machine_id,
        work.slot,
        work.process,
        work.work_id,
        work.fence
),
cleared_backoffs AS (
    DELETE FROM
        work_backoff
    USING
        ended
    WHERE
        work_backoff.machine_id = ended.machine_id
        AND work_backoff.process = ended.process
),
recorded_ends AS (
    INSERT INTO
        work_history (
            machine_id,
            fence,
            event,
            work_id,
            process,
            slot,
            session_id,
            component_name,
            runtime_info,
            at,
            cause
        )
    SELECT
        ended.machine_id,
        ended.fence,
        CAST($6 AS TEXT),
        ended.work_id,
        ended.process,
        ended.slot,
        CAST($7 AS UUID),
        CAST($8 AS TEXT),
        CAST($9 AS TEXT),
        now(),
        CAST(NULL AS TEXT)
    FROM
        ended
),
stated_0 AS (
    INSERT INTO
        "machine_agent_started" ("machine_id", "at", "public_key")
    SELECT
        "ended"."machine_id",
        now(),
        "stated"."column2"
    FROM
        "ended",
        (
            VALUES
                ($10, $11)) AS "stated"
    WHERE
        "ended"."work_id" = "stated"."column1"
    ORDER BY
        "ended"."machine_id" ASC
    ON CONFLICT
        ("machine_id")
    DO UPDATE SET
        "at" = "excluded"."at",
        "public_key" = "excluded"."public_key"
),
stated_1 AS (
    INSERT INTO
        "machine_agent_heartbeat" ("machine_id", "at")
    SELECT
        "ended"."machine_id",
        now()
    FROM
        "ended",
        (
            VALUES
                ($12)) AS "stated"
    WHERE
        "ended"."work_id" = "stated"."column1"
    ORDER BY
        "ended"."machine_id" ASC
    ON CONFLICT
        ("machine_id")
    DO UPDATE SET
        "at" = "excluded"."at"
)
SELECT
    work_id
FROM
    ended;
