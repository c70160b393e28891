//! Ends what was going on in a database that was put back from a backup: to be run once, before any component starts. See `docs/backups.md`.
//!
//!     BMDB_DATABASE_URL=postgres://… cargo run --package bmdb-examples --bin after-restore

use bmdb::{Bmdb, Config, runtime_info};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bmdb = Bmdb::connect(Config::from_env("after-restore", runtime_info!())?).await?;
    println!(
        "{}: breaks the sessions of the backup and waits until nobody can believe in one",
        bmdb.name()
    );
    let who = std::env::var("USER").unwrap_or_else(|_| "after-restore".to_owned());
    let operator = bmdb.operator(who, "the database was put back from a backup")?;
    let restored = operator.after_restore().await?;
    println!(
        "{} sessions expired, {} works freed",
        restored.expired.len(),
        restored.freed
    );
    bmdb.close().await;
    if restored.ahead > 0 {
        return Err(format!(
            "the fences of {} machines lie ahead of the database's clock: set the clock first",
            restored.ahead
        )
        .into());
    }
    Ok(())
}
