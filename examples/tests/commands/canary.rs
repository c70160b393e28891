//! The command `fleet` never says a password, whatever is wrong with its database's URL.

use std::process::{Command, Stdio};

#[test]
fn fleet_never_says_a_password() {
    let folder = std::env::temp_dir().join(format!("fleet-canary-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    for wrong in [
        "canary:canary",
        "mysql://u:canary@localhost/bmdb",
        "postgres://u:canary@127.0.0.1:1/bmdb",
        "postgres://u:canary@localhost:port/bmdb",
        "postgres://u:canary%@localhost/bmdb?sslmode=canary",
        "postgres://u@127.0.0.1:1/bmdb?sslpassword=canary",
        "postgres://localhost:1/canary@localhost/bmdb",
        "postgres://u:canary@db.example/bmdb",
    ] {
        for by_environment in [false, true] {
            let mut fleet = Command::new(env!("CARGO_BIN_EXE_fleet"));
            fleet
                .env_remove("BMDB_DATABASE_URL")
                .env("RUST_LOG", "debug,bmdb=trace")
                .env("PGPASSWORD", "canary");
            if by_environment {
                fleet.env("BMDB_DATABASE_URL", wrong);
            } else {
                fleet.args(["--database", wrong]);
            }
            let ended = fleet
                .current_dir(&folder)
                .stdin(Stdio::null())
                .output()
                .expect("it was built");
            let said = [ended.stdout, ended.stderr]
                .map(|stream| String::from_utf8_lossy(&stream).into_owned())
                .join("\n");
            assert!(!ended.status.success() && said.contains("fleet: "), "{wrong}: {said}");
            assert!(!said.contains("canary"), "{wrong}: {said}");
        }
    }
    std::fs::remove_dir_all(&folder).expect("it is ours");
}
