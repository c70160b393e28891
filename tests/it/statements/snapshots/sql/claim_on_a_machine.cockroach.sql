WITH
candidates AS (
    SELECT
        CAST($1 AS UUID) AS machine_id),
chosen AS MATERIALIZED (
    SELECT
        "machine"."machine_id" AS "bmdb_machine",
        "machine"."fence" AS "bmdb_fence",
        CAST("bmdb_backoff"."attempts" AS BIGINT) AS "bmdb_attempts",
        CAST("bmdb_backoff"."last_interval_seconds" AS BIGINT) AS "bmdb_interval",
        "machine_provided"."machine_id" AS "bmdb_item_machine_id",
        "machine_provided"."provider" AS "bmdb_item_provider",
        "machine_provided"."provider_id" AS "bmdb_item_provider_id",
        "machine_provided"."reservation" AS "bmdb_item_reservation",
        "machine_provided"."address" AS "bmdb_item_address",
        "machine_provided"."location" AS "bmdb_item_location",
        "machine_provided"."status" AS "bmdb_item_status"
    FROM
        "machine"
        INNER JOIN "machine_provided" ON "machine_provided"."machine_id" = "machine"."machine_id"
        LEFT JOIN "work_backoff" AS "bmdb_backoff" ON "bmdb_backoff"."machine_id" = "machine"."machine_id"
        AND "bmdb_backoff"."process" = $2
        INNER JOIN "candidates" ON "candidates"."machine_id" = "machine"."machine_id"
    WHERE
        TRUE
        AND (
            (
                NOT EXISTS (
                    SELECT
                        "machine_agent_started"."machine_id"
                    FROM
                        "machine_agent_started"
                    WHERE
                        "machine_agent_started"."machine_id" = "machine"."machine_id"
                )
            )
            AND (
                NOT EXISTS (
                    SELECT
                        "machine_os_installation_request"."machine_id"
                    FROM
                        "machine_os_installation_request"
                        INNER JOIN "machine_os_installation_report" ON "machine_os_installation_report"."machine_id" = "machine_os_installation_request"."machine_id"
                        AND "machine_os_installation_report"."generation" = "machine_os_installation_request"."generation"
                    WHERE
                        "machine_os_installation_request"."machine_id" = "machine"."machine_id"
                )
            )
        )
        AND (
            "machine"."fence" < 9223372036854775807
            AND (
                NOT EXISTS (
                    SELECT
                        "work"."machine_id"
                    FROM
                        "work"
                    WHERE
                        "work"."machine_id" = "machine"."machine_id"
                        AND "work"."slot" = $3
                )
            )
            AND (
                NOT EXISTS (
                    SELECT
                        "work_hold"."machine_id"
                    FROM
                        "work_hold"
                    WHERE
                        "work_hold"."machine_id" = "machine"."machine_id"
                        AND "work_hold"."slot" IN ($4, $5)
                        AND (
                            "work_hold"."until" IS NULL
                            OR "work_hold"."until" > (now())
                        )
                )
            )
        )
        AND (
            "bmdb_backoff"."machine_id" IS NULL
            OR "bmdb_backoff"."until" <= (now())
        )
        AND (
            NOT EXISTS (
                SELECT
                    "process"
                FROM
                    "process_pause"
                WHERE
                    "process_pause"."process" = $6
                    AND (
                        "process_pause"."until" IS NULL
                        OR "process_pause"."until" > (now())
                    )
            )
        )
    LIMIT
        $7
),
fenced AS (
    UPDATE
        machine
    SET
        fence = greatest(
            machine.fence + 1,
            CAST(extract(epoch
                    FROM
                        now()) * 1000 AS BIGINT)
        )
    FROM
        chosen
    WHERE
        machine.machine_id = chosen.bmdb_machine
        AND machine.fence = chosen.bmdb_fence
    RETURNING
        machine.machine_id,
        machine.fence
),
identified AS (
    SELECT
        machine_id,
        fence,
        CAST($8 AS UUID) AS work_id
    FROM
        fenced
),
claimed AS (
    INSERT INTO
        work (
            machine_id,
            slot,
            process,
            work_id,
            session_id,
            fence,
            claimed_at
        )
    SELECT
        identified.machine_id,
        CAST($9 AS TEXT),
        CAST($10 AS TEXT),
        identified.work_id,
        CAST($11 AS UUID),
        identified.fence,
        now()
    FROM
        identified
    RETURNING
        machine_id,
        slot,
        process,
        work_id,
        session_id,
        fence
),
recorded AS (
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
            at
        )
    SELECT
        claimed.machine_id,
        claimed.fence,
        'started',
        claimed.work_id,
        claimed.process,
        claimed.slot,
        claimed.session_id,
        CAST($12 AS TEXT),
        CAST($13 AS TEXT),
        now()
    FROM
        claimed
    RETURNING
        machine_id
)
SELECT
    CAST(NULL AS TEXT) AS bmdb_left,
    claimed.fence AS bmdb_fence,
    claimed.work_id AS bmdb_work,
    chosen."bmdb_machine",
    chosen."bmdb_attempts",
    chosen."bmdb_interval",
    chosen."bmdb_item_machine_id",
    chosen."bmdb_item_provider",
    chosen."bmdb_item_provider_id",
    chosen."bmdb_item_reservation",
    chosen."bmdb_item_address",
    chosen."bmdb_item_location",
    chosen."bmdb_item_status",
    (
        SELECT
            CAST(count(machine_id) AS BIGINT)
        FROM
            candidates
    ) AS bmdb_candidates,
    EXISTS (
        SELECT
            bmdb_machine
        FROM
            chosen
    ) AS bmdb_eligible,
    CAST(NULL AS BIGINT) AS bmdb_search_lease,
    EXISTS (
        SELECT
            pause.process
        FROM
            process_pause AS pause
        WHERE
            pause.process = $14
            AND (
                pause.until IS NULL
                OR pause.until > now()
            )
    ) AS bmdb_paused,
    work_retrieval.begun AS bmdb_begun,
    work_retrieval.ended AS bmdb_ended
FROM
    (
        VALUES
            (CAST(1 AS BIGINT))) AS one (number)
    LEFT JOIN (
        claimed
        JOIN chosen ON chosen.bmdb_machine = claimed.machine_id
    ) ON true
    LEFT JOIN work_retrieval ON work_retrieval.process = $15;
