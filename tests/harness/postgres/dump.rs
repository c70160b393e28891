//! A backup by PostgreSQL's own programs, with the arguments that docs/backups.md names.

use super::{Binaries, done, server};
use crate::folder;

/// Takes a backup of a database, whatever its clients do meanwhile, and puts it back into a new one, whose name it answers.
pub(crate) async fn dump_and_restore(database: &str) -> String {
    let (server, binaries) = (server().await, Binaries::find());
    let folder = folder::new("dump");
    binaries.hand_over(folder.path());
    let file = folder.path().join("bmdb.dump");
    let mut dump = binaries.command("pg_dump");
    dump.args(["--format=custom", "--file"])
        .arg(&file)
        .arg(server.url(database));
    done("pg_dump", dump);
    let restored = server.new_database("template0").await;
    let mut restore = binaries.command("pg_restore");
    restore
        .args(["--exit-on-error", "--dbname"])
        .arg(server.url(&restored))
        .arg(&file);
    done("pg_restore", restore);
    restored
}
