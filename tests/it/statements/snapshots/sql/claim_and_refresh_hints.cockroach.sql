WITH
candidates AS (
    SELECT
        part,
        machine_id,
        hint
    FROM
        (
            (
                SELECT
                    1 AS part,
                    machine_id,
                    machine_id AS hint
                FROM
                    work_candidate
                WHERE
                    process = $1
                    AND machine_id >= $2
                ORDER BY
                    machine_id
                LIMIT
                    17
            )
            UNION ALL
            (
                SELECT
                    2 AS part,
                    machine_id,
                    machine_id AS hint
                FROM
                    work_candidate
                WHERE
                    process = $3
                    AND machine_id < $4
                ORDER BY
                    machine_id
                LIMIT
                    17
            )
        ) AS around
    WHERE
        true
    LIMIT
        9 OFFSET CAST($5 AS BIGINT)
),
chosen AS MATERIALIZED (
    SELECT
        chosen.bmdb_fence,
        chosen."bmdb_machine",
        chosen."bmdb_attempts",
        chosen."bmdb_interval",
        chosen."bmdb_item_machine_id",
        chosen."bmdb_item_provider",
        chosen."bmdb_item_provider_id",
        chosen."bmdb_item_reservation",
        chosen."bmdb_item_address",
        chosen."bmdb_item_location",
        chosen."bmdb_item_status"
    FROM
        candidates
        CROSS JOIN LATERAL (
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
                AND "bmdb_backoff"."process" = $6
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
                                AND "work"."slot" = $7
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
                                AND "work_hold"."slot" IN ($8, $9)
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
                            "process_pause"."process" = $10
                            AND (
                                "process_pause"."until" IS NULL
                                OR "process_pause"."until" > (now())
                            )
                    )
                )
                AND candidates.machine_id = machine.machine_id
        ) AS chosen
    ORDER BY
        candidates.part,
        candidates.machine_id
    LIMIT
        1
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
        CAST($11 AS UUID) AS work_id
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
        CAST($12 AS TEXT),
        CAST($13 AS TEXT),
        identified.work_id,
        CAST($14 AS UUID),
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
        CAST($15 AS TEXT),
        CAST($16 AS TEXT),
        now()
    FROM
        claimed
    RETURNING
        machine_id
),
spent_hints AS (
    SELECT
        machine_id AS hint
    FROM
        work_candidate
    WHERE
        process = $17
        AND machine_id IN (
            SELECT
                candidates.hint
            FROM
                candidates
            WHERE
                (
                    EXISTS (
                        SELECT
                            fenced.machine_id
                        FROM
                            candidates AS taken
                            JOIN fenced ON fenced.machine_id = taken.machine_id
                        WHERE
                            (candidates.part, candidates.machine_id) <= (taken.part, taken.machine_id)
                    )
                    OR NOT EXISTS (
                        SELECT
                            chosen.bmdb_machine
                        FROM
                            chosen
                    )
                    AND NOT EXISTS (
                        SELECT
                            pause.process
                        FROM
                            process_pause AS pause
                        WHERE
                            pause.process = $18
                            AND (
                                pause.until IS NULL
                                OR pause.until > now()
                            )
                    )
                )
        )
),
removed_hints AS (
    DELETE FROM
        work_candidate
    WHERE
        process = $19
        AND machine_id IN (
            SELECT
                spent_hints.hint
            FROM
                spent_hints
        )
),
search_lease AS (
    UPDATE
        work_retrieval
    SET
        begun = begun + 1,
        began_at = now(),
        until = (
            now() + CAST(
                (
                    CASE
                        WHEN 10000 > 3162240000000 THEN 3162240000000
                        ELSE 10000
                    END
                ) AS BIGINT
            ) * INTERVAL '1 millisecond'
        )
    WHERE
        process = $20
        AND (
            until <= now()
            OR until > (
                now() + CAST(
                    (
                        CASE
                            WHEN 20000 > 3162240000000 THEN 3162240000000
                            ELSE 20000
                        END
                    ) AS BIGINT
                ) * INTERVAL '1 millisecond'
            )
        )
        AND ended <= COALESCE(
            CAST($21 AS BIGINT),
            (
                SELECT
                    seen.begun
                FROM
                    work_retrieval AS seen
                WHERE
                    seen.process = $22
            )
        )
        AND NOT EXISTS (
            SELECT
                pause.process
            FROM
                process_pause AS pause
            WHERE
                pause.process = $23
                AND (
                    pause.until IS NULL
                    OR pause.until > now()
                )
        )
        AND NOT EXISTS (
            SELECT
                chosen.bmdb_machine
            FROM
                chosen
        )
        AND (
            SELECT
                CAST(count(machine_id) AS BIGINT)
            FROM
                candidates
        ) < $24
    RETURNING
        begun
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
    (
        SELECT
            begun
        FROM
            search_lease
    ) AS bmdb_search_lease,
    EXISTS (
        SELECT
            pause.process
        FROM
            process_pause AS pause
        WHERE
            pause.process = $25
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
    LEFT JOIN work_retrieval ON work_retrieval.process = $26;

SELECT
    CAST(count(process) AS BIGINT)
FROM
    (
        SELECT
            process
        FROM
            work_candidate
        WHERE
            process = $1
        LIMIT
            250
    ) AS some_hints;

UPDATE
    work_retrieval
SET
    begun = begun + 1,
    began_at = now(),
    until = (
        now() + CAST(
            (
                CASE
                    WHEN 10000 > 3162240000000 THEN 3162240000000
                    ELSE 10000
                END
            ) AS BIGINT
        ) * INTERVAL '1 millisecond'
    )
WHERE
    process = $1
    AND (
        until <= now()
        OR until > (
            now() + CAST(
                (
                    CASE
                        WHEN 20000 > 3162240000000 THEN 3162240000000
                        ELSE 20000
                    END
                ) AS BIGINT
            ) * INTERVAL '1 millisecond'
        )
    )
    AND ended <= COALESCE(
        CAST($2 AS BIGINT),
        (
            SELECT
                seen.begun
            FROM
                work_retrieval AS seen
            WHERE
                seen.process = $1
        )
    )
    AND NOT EXISTS (
        SELECT
            pause.process
        FROM
            process_pause AS pause
        WHERE
            pause.process = $3
            AND (
                pause.until IS NULL
                OR pause.until > now()
            )
    );

SELECT
    begun
FROM
    work_retrieval
WHERE
    process = $1;

SELECT
    "machine"."machine_id"
FROM
    "machine"
    INNER JOIN "machine_provided" ON "machine_provided"."machine_id" = "machine"."machine_id"
WHERE
    "machine"."machine_id" >= $1
    AND TRUE
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
                    AND "work"."slot" = $2
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
                    AND "work_hold"."slot" IN ($3, $4)
                    AND (
                        "work_hold"."until" IS NULL
                        OR "work_hold"."until" > (now())
                    )
            )
        )
    )
    AND (
        NOT EXISTS (
            SELECT
                "work_backoff"."machine_id"
            FROM
                "work_backoff"
            WHERE
                "work_backoff"."machine_id" = "machine"."machine_id"
                AND "work_backoff"."process" = $5
                AND (
                    "work_backoff"."until" IS NULL
                    OR "work_backoff"."until" > (now())
                )
        )
    )
ORDER BY
    "machine"."machine_id" ASC
LIMIT
    $6;

SELECT
    "machine"."machine_id"
FROM
    "machine"
    INNER JOIN "machine_provided" ON "machine_provided"."machine_id" = "machine"."machine_id"
WHERE
    "machine"."machine_id" < $1
    AND TRUE
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
                    AND "work"."slot" = $2
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
                    AND "work_hold"."slot" IN ($3, $4)
                    AND (
                        "work_hold"."until" IS NULL
                        OR "work_hold"."until" > (now())
                    )
            )
        )
    )
    AND (
        NOT EXISTS (
            SELECT
                "work_backoff"."machine_id"
            FROM
                "work_backoff"
            WHERE
                "work_backoff"."machine_id" = "machine"."machine_id"
                AND "work_backoff"."process" = $5
                AND (
                    "work_backoff"."until" IS NULL
                    OR "work_backoff"."until" > (now())
                )
        )
    )
ORDER BY
    "machine"."machine_id" ASC
LIMIT
    $6;

INSERT INTO
    work_candidate (process, machine_id, found_at)
VALUES
    ($1, $2, now()),
    …
ON CONFLICT
    (process, machine_id)
DO NOTHING;

UPDATE
    work_retrieval
SET
    ended = begun,
    until = now()
WHERE
    process = $1
    AND begun = $2;
