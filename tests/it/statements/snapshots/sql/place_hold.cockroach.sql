UPDATE
    machine
SET
    fence = greatest(
        machine.fence + 1,
        CAST(extract(epoch
                FROM
                    now()) * 1000 AS BIGINT)
    )
WHERE
    machine_id = $1
    AND fence < $2;

INSERT INTO
    work_hold (
        machine_id,
        slot,
        until,
        reason,
        placed_by,
        placed_at,
        ticket
    )
VALUES
    (
        $1,
        $2,
        CAST($3 AS TIMESTAMPTZ),
        $4,
        $5,
        now(),
        $6
    )
ON CONFLICT
    (machine_id, slot)
DO UPDATE SET
    until = excluded.until,
    reason = excluded.reason,
    placed_by = excluded.placed_by,
    placed_at = excluded.placed_at,
    ticket = excluded.ticket
WHERE
    work_hold.until <= now()
    OR (
        work_hold.until IS NOT NULL
        AND (
            excluded.until IS NULL
            OR excluded.until > work_hold.until
        )
    );

INSERT INTO
    operation (
        operation_id,
        at,
        done_by,
        component,
        verb,
        machine_id,
        slot,
        process,
        work_id,
        session_id,
        detail,
        reason,
        ticket
    )
VALUES
    ($1, now(), $2, …);
