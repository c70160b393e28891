INSERT INTO
    session (
        session_id,
        component_name,
        runtime_info,
        created_at,
        interval_ms
    )
VALUES
    (
        $1,
        $2,
        $3,
        strftime('%Y-%m-%d %H:%M:%f', 'now'),
        $4
    );

INSERT INTO
    session_lease (session_id, deadline)
VALUES
    (
        $1,
        strftime(
            '%Y-%m-%d %H:%M:%f',
            'now',
            ($2 / 1000.0) || ' seconds'
        )
    );
