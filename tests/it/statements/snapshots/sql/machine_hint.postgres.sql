SELECT
    session_id
FROM
    session
WHERE
    session_id = $1
FOR KEY SHARE;

INSERT INTO
    work_candidate (process, machine_id, found_at)
SELECT
    process,
    $2,
    now()
FROM
    work_retrieval
WHERE
    process = $1
    OR substr(process, 1, length($1) + 1) = $1 || '@'
ORDER BY
    process
ON CONFLICT
    (process, machine_id)
DO NOTHING;
