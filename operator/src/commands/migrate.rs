//! The schema, along its steps.

use bmdb_migration::{Destroy, State};
use serde_json::json;

use crate::answer::words::count;
use crate::answer::{Answer, Table};
use crate::cli::{Global, Migrate};
use crate::failure::Failure;

pub(super) async fn run(global: &Global, verb: Migrate) -> Result<Answer, Failure> {
    let Some(url) = &global.database else {
        return Err(Failure::usage(
            "no database was named. Give --database URL or set BMDB_DATABASE_URL",
        ));
    };
    match verb {
        Migrate::Up => {
            let applied = bmdb_migration::up(url, None).await?;
            let sentence = match applied.len() as u64 {
                0 => "Nothing to do: every step is applied.".to_owned(),
                steps => format!("{} applied.", count(steps, "step is", "steps are")),
            };
            Ok(Answer::new(sentence, json!({"applied": applied})).lines(applied))
        }
        Migrate::Down {
            steps,
            yes_destroy_data,
        } => {
            let destroy = if yes_destroy_data {
                Destroy::Anyway
            } else {
                Destroy::OnlyInDevelopment
            };
            let undone = bmdb_migration::down(url, steps, destroy).await?;
            let sentence = format!("{} undone.", count(undone.len() as u64, "step is", "steps are"));
            Ok(Answer::new(sentence, json!({"undone": undone})).lines(undone))
        }
        Migrate::Status => {
            let steps = bmdb_migration::status(url).await?;
            let of = |state: State| steps.iter().filter(|step| step.state == state).count() as u64;
            let (applied, pending, unknown) = (of(State::Applied), of(State::Pending), of(State::Unknown));
            let sentence = match (pending, unknown) {
                (0, 0) => format!("All {applied} steps are applied."),
                (0, unknown) => format!(
                    "All of ours are applied, and {} that this build does not know.",
                    count(unknown, "step", "steps")
                ),
                (pending, _) => format!(
                    "{} pending. next: bmdb migrate up",
                    count(pending, "step is", "steps are")
                ),
            };
            let mut table = Table::new(&["step", "state"]);
            for step in &steps {
                table.row([step.name.clone(), step.state.to_string()]);
            }
            let json = steps
                .iter()
                .map(|step| json!({"step": step.name, "state": step.state.to_string()}));
            Ok(Answer::new(sentence, json!({"steps": json.collect::<Vec<_>>()}))
                .table(table)
                .found(pending > 0))
        }
    }
}
