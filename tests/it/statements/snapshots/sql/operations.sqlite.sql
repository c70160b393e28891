SELECT
    operation_id,
    ifnull (strftime('%Y-%m-%d %H:%M:%f', at), at) AS at,
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
    ticket,
    lower(
        substr(hex(operation_id), 1, 8) || '-' || substr(hex(operation_id), 9, 4) || '-' || substr(hex(operation_id), 13, 4) || '-' || substr(hex(operation_id), 17, 4) || '-' || substr(hex(operation_id), 21, 12)
    ) AS row_name
FROM
    operation
WHERE
    machine_id = $1
ORDER BY
    operation.at DESC,
    operation_id DESC
LIMIT
    $2;
