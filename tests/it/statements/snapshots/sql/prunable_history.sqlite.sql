SELECT
    strftime('%Y-%m-%d %H:%M:%f', 'now') AS now;

SELECT
    machine_id,
    fence
FROM
    work_history
WHERE
    (machine_id, fence) > ($1, $2)
ORDER BY
    machine_id,
    fence
LIMIT
    1 OFFSET $3;

SELECT
    CAST(count(event) AS BIGINT)
FROM
    work_history
WHERE
    (machine_id, fence) > ($1, $2)
    AND (machine_id, fence) <= ($3, $4)
    AND EXISTS (
        SELECT
            e.event
        FROM
            work_history AS e
        WHERE
            e.machine_id = work_history.machine_id
            AND e.fence = work_history.fence
            AND (e.machine_id, e.fence) > ($1, $2)
            AND (e.machine_id, e.fence) <= ($3, $4)
            AND e.event <> 'started'
            AND e.at < strftime('%Y-%m-%d %H:%M:%f', $5)
    );
