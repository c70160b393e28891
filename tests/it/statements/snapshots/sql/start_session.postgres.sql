INSERT INTO
    session (
        session_id,
        component_name,
        runtime_info,
        created_at,
        interval_ms
    )
VALUES
    ($1, $2, $3, now(), $4);

INSERT INTO
    session_lease (session_id, deadline)
VALUES
    (
        $1,
        (
            now() + CAST($2 AS BIGINT) * INTERVAL '1 millisecond'
        )
    );
