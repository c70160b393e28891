//! How often each operation took effect.

use super::operation::Operation::{self, *};
use super::scene::Scene;

impl Operation {
    /// How often it took effect so far.
    pub(super) async fn effect(self, scene: &Scene) -> i64 {
        let events = async |event: &str| {
            let count = format!("SELECT count(*) FROM work_history WHERE machine_id = $1 AND event = '{event}'");
            scene.number(&count).await
        };
        // An operator's act and its row are one, however often it was done. At one moment, for a statement may still be under way.
        let recorded = async |verb: &str, effect: &str| {
            let both = format!(
                "SELECT CASE WHEN (e.n > 0) = (a.n > 0) THEN e.n ELSE {} END FROM ({effect}) AS e (n), \
                 (SELECT count(*) FROM operation WHERE verb = '{verb}' AND (machine_id = $1 OR session_id = '{}' \
                 OR machine_id IS NULL AND session_id IS NULL)) AS a (n)",
                i64::MAX,
                scene.other.id()
            );
            scene.number(&both).await
        };
        const HEARD: &str = "SELECT count(*) FROM machine_agent_heartbeat WHERE machine_id = $1";
        const COUNTER: &str = "SELECT n FROM counter WHERE id = {nth}";
        match self {
            Connect | Heartbeat | Count | Explain | History | Holds | Backoffs | Sessions | Operations | Machines
            | Works | Processes => 1,
            Register => {
                let rules = "SELECT count(*) FROM process_rule WHERE process = 'numbered' AND CAST(clauses AS TEXT) LIKE '%CAST({nth} AS BIGINT)%'";
                scene.number(rules).await
            }
            StartSession => {
                let own = format!(
                    "SELECT count(*) - 1 FROM session WHERE component_name = '{}'",
                    scene.component()
                );
                scene.number(&own).await
            }
            Transact | WorkTransact => scene.number(COUNTER).await,
            State => scene.number(HEARD).await,
            Claim | ClaimMany => events("started").await,
            Progress => {
                let written = "SELECT count(*) FROM work WHERE machine_id = $1 AND progress IS NOT NULL";
                scene.number(written).await
            }
            Finish => {
                let (counted, finished) = (scene.number(COUNTER).await, events("finished").await);
                // The body and the end are one.
                if counted == finished { finished } else { i64::MAX }
            }
            Done => {
                let (stated, finished) = (scene.number(HEARD).await, events("finished").await);
                // What an end states and the end are one.
                if stated == finished { finished } else { i64::MAX }
            }
            Update => {
                let updated = "SELECT count(*) FROM machine_provided WHERE machine_id = $1 AND address = '192.0.2.7'";
                let (updated, finished) = (scene.number(updated).await, events("finished").await);
                if updated == finished { finished } else { i64::MAX }
            }
            Fail | FailThenClaim => {
                let attempts = "SELECT coalesce(max(attempts), 0) FROM work_backoff WHERE machine_id = $1";
                let (backed_off, failed) = (scene.number(attempts).await, events("failed").await);
                let stated = if self == Fail {
                    failed
                } else {
                    scene.number(HEARD).await
                };
                if backed_off == failed && stated == failed {
                    failed
                } else {
                    i64::MAX
                }
            }
            FailMany => {
                let other = format!(
                    "SELECT count(*) FROM work_history JOIN work_backoff USING (machine_id) WHERE machine_id = '{}' AND event = 'failed'",
                    scene.machines[1]
                );
                let (one, other) = (events("failed").await, scene.number(&other).await);
                if one == other { one } else { i64::MAX }
            }
            Cancel | Drop => events("canceled").await,
            Close => {
                let gone = format!(
                    "SELECT 1 - count(*) FROM session WHERE session_id = '{}'",
                    scene.session.id()
                );
                scene.number(&gone).await
            }
            Sweep => events("expired").await,
            PlaceHold => recorded("place-hold", "SELECT count(*) FROM work_hold WHERE machine_id = $1").await,
            DrainMachine => {
                // Whoever is gone has let go of the work as well, and nobody need ask any more.
                const DRAINED: &str = "SELECT count(*) FROM work_hold LEFT JOIN work USING (machine_id) \
                    WHERE machine_id = $1 AND (work_id IS NULL OR stop_requested = 'a test')";
                recorded("drain-machine", DRAINED).await
            }
            LiftHold => {
                let lifted = "SELECT 1 - count(*) FROM work_hold WHERE machine_id = $1";
                recorded("lift-hold", lifted).await
            }
            RunNow => {
                let due = "SELECT count(*) FROM work_backoff WHERE machine_id = $1 AND until <= now()";
                recorded("run-now", due).await
            }
            ClearBackoff => {
                let cleared = "SELECT 1 - count(*) FROM work_backoff WHERE machine_id = $1";
                recorded("clear-backoff", cleared).await
            }
            AskToStop => {
                // Nor is there anything left to see where the work is gone: then its row tells.
                let asked = "SELECT count(*) FROM operation LEFT JOIN work USING (machine_id) \
                    WHERE machine_id = $1 AND verb = 'ask-to-stop' AND (work.work_id IS NULL OR stop_requested = 'a test')";
                recorded("ask-to-stop", asked).await
            }
            BreakSession | BreakHolder => {
                let broken = format!(
                    "SELECT count(*) FROM session_lease WHERE deadline <= now() AND session_id = '{}'",
                    scene.other.id()
                );
                recorded("break-session", &broken).await
            }
            DrainSession => {
                let drained = format!(
                    "SELECT count(*) FROM session_lease WHERE drain_requested = 'a test' AND session_id = '{}'",
                    scene.other.id()
                );
                recorded("drain-session", &drained).await
            }
            PauseProcess => {
                recorded(
                    "pause-process",
                    "SELECT count(*) FROM process_pause WHERE process = 'survey'",
                )
                .await
            }
            ResumeProcess => {
                let resumed = "SELECT 1 - count(*) FROM process_pause WHERE process = 'survey'";
                recorded("resume-process", resumed).await
            }
            RemoveMachine => {
                let gone = "SELECT 1 - count(*) FROM machine WHERE machine_id = $1";
                recorded("remove-machine", gone).await
            }
            // Written down before, for it goes on in many transactions.
            PruneHistory => {
                let gone = "SELECT CAST(CASE WHEN count(*) = 0 THEN 1 ELSE 0 END AS BIGINT) FROM work_history WHERE machine_id = $1";
                scene.number(gone).await
            }
            AskAllToStop => {
                let asked = "SELECT count(*) FROM operation WHERE verb = 'ask-all-to-stop' AND NOT EXISTS (SELECT work_id FROM work \
                    WHERE machine_id = $1 AND stop_requested IS NULL)";
                recorded("ask-all-to-stop", asked).await
            }
        }
    }
}
