WITH
to_end (machine_id, slot, process, fence, work_id, rule) AS (
    VALUES
        (
            CAST($1 AS UUID),
            CAST($2 AS TEXT),
            CAST($3 AS TEXT),
            CAST($4 AS BIGINT),
            CAST($5 AS UUID),
            CAST($6 AS TEXT)
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
        work.fence,
        to_end.rule
),
hinted AS (
    INSERT INTO
        work_candidate (process, machine_id, found_at)
    SELECT
        ended.rule,
        ended.machine_id,
        now()
    FROM
        ended
    ORDER BY
        ended.machine_id
    ON CONFLICT
        (process, machine_id)
    DO NOTHING
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
        CAST($7 AS TEXT),
        ended.work_id,
        ended.process,
        ended.slot,
        CAST($8 AS UUID),
        CAST($9 AS TEXT),
        CAST($10 AS TEXT),
        now(),
        CAST(NULL AS TEXT)
    FROM
        ended
)
SELECT
    work_id
FROM
    ended;
