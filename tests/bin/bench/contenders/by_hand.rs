//! A loop written by hand that sends what the connector sends for a claim of one machine and for its failure: what is left of the client's CPU is the
//! driver's, and the difference is the connector's.
//!
//! The statements are taken off the wire when the loop first takes part, so that they are always the connector's own; and so are the values that they
//! are sent with, which says what each place is for.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bmdb::{Bmdb, Config, Error, MachineId};
use harness::{AgentStart, Bound, Fate, OwnServer, Proxy, of};
use sea_orm::sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, Postgres, Row};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::Failure;
use crate::contender::Cycle;
use crate::contenders::clients::Clients;
use crate::fleet::{Fleet, Size};

/// So many cycles of the connector are watched: enough for what varies to be seen varying.
const WATCHED: usize = 64;

/// As the connector's connections for claims and ends are set up (`db/server.rs`).
const SETTINGS: [(&str, &str); 9] = [
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "10000"),
    ("lock_timeout", "5000"),
    ("idle_in_transaction_session_timeout", "3333"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

static STATEMENTS: OnceCell<Statements> = OnceCell::const_new();

struct Statements {
    claim: Template,
    fail: Template,
}

/// A statement, and what each of its places is for.
struct Template {
    sql: String,
    places: Vec<Place>,
}

enum Place {
    Same(Value),
    Session,
    Work,
    Machine,
    Fence,
    /// A random id, the same in all such places of a statement: where to begin among the hints.
    Start,
    /// A random number: how many hints to pass over, how long to back off.
    Between(RangeInclusive<i64>),
}

/// What a place held, of the types that these statements have.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Id(Option<Uuid>),
}

impl Value {
    fn read(bound: &Bound) -> Result<Self, Failure> {
        let bytes = bound.bytes.as_deref();
        Ok(match bound.oid {
            20 => Self::Number(
                bytes
                    .map(|bytes| bytes.try_into().map(i64::from_be_bytes))
                    .transpose()?,
            ),
            25 => Self::Text(bytes.map(|bytes| String::from_utf8(bytes.to_vec())).transpose()?),
            2950 => Self::Id(bytes.map(Uuid::from_slice).transpose()?),
            other => return Err(format!("the loop knows no values of the type {other}").into()),
        })
    }
}

/// What a statement is about.
#[derive(Clone, Copy)]
struct Subject {
    session: Uuid,
    work: Uuid,
    machine: Uuid,
    fence: i64,
}

/// A statement on the wire.
#[derive(Clone)]
struct Sent {
    sql: String,
    values: Vec<Bound>,
}

impl Sent {
    fn bears(&self, id: Uuid) -> bool {
        let is_it = |value: &Bound| value.bytes.as_deref() == Some(id.as_bytes().as_slice());
        self.values.iter().any(is_it)
    }
}

/// Has the connector claim and fail behind a proxy, on a server that nobody measures.
async fn watch() -> Result<Statements, Failure> {
    let server = OwnServer::start().await;
    let database = server.database();
    let size = Size {
        machines: 4 * u32::try_from(WATCHED)?,
        share: 1.0,
    };
    let _fleet = Fleet::fill(&database, size).await?;
    let network = Proxy::to(database.url()).await;
    let wire = Arc::<Mutex<Vec<Sent>>>::default();
    network.decide({
        let wire = Arc::clone(&wire);
        move |passing| {
            wire.lock().unwrap_or_else(PoisonError::into_inner).push(Sent {
                sql: passing.sql.to_owned(),
                values: passing.values.to_vec(),
            });
            Fate::Pass
        }
    });
    let bmdb = Bmdb::connect(Config::new(network.url(), "bench", bmdb::runtime_info!())).await?;
    let session = bmdb.start_session().await?;
    let mut cycles = Vec::new();
    for _ in 0..WATCHED {
        let work = session
            .claim(&of::<AgentStart>(&session).await)
            .await?
            .ok_or("there is nothing to claim")?;
        let subject = Subject {
            session: session.id().0,
            work: work.id().0,
            machine: work.machine().0,
            fence: work.fence().0,
        };
        work.fail("bench").await.map_err(Error::from)?;
        let sent = std::mem::take(&mut *wire.lock().unwrap_or_else(PoisonError::into_inner));
        let mut about: Vec<Sent> = sent.into_iter().filter(|sent| sent.bears(subject.work)).collect();
        let (Some(fail), Some(claim), None) = (about.pop(), about.pop(), about.pop()) else {
            return Err("a claim and a failure are no longer one statement each".into());
        };
        cycles.push((subject, claim, fail));
    }
    session.close().await?;
    bmdb.close().await;
    let claims = cycles.iter().map(|(subject, claim, _)| (*subject, claim));
    let fails = cycles.iter().map(|(subject, _, fail)| (*subject, fail));
    Ok(Statements {
        claim: Template::of(claims.collect())?,
        fail: Template::of(fails.collect())?,
    })
}

impl Template {
    /// Of the statement that was sent last, and most often: a claim that is not sure of its hints sends another.
    fn of(sent: Vec<(Subject, &Sent)>) -> Result<Self, Failure> {
        let sql = sent.last().ok_or("nothing was sent")?.1.sql.clone();
        let mut alike: Vec<(Subject, Vec<Value>)> = Vec::new();
        for (subject, sent) in sent {
            if sent.sql == sql {
                let values: Result<_, Failure> = sent.values.iter().map(Value::read).collect();
                alike.push((subject, values?));
            }
        }
        if alike.len() < WATCHED / 2 {
            return Err(format!("the connector says it in another way each time, and last: {sql}").into());
        }
        let count = alike[0].1.len();
        let places: Result<Vec<Place>, Failure> = (0..count).map(|nth| Place::of(&alike, nth)).collect();
        let places = places.map_err(|error| format!("{error} of: {sql}"))?;
        let starts: Vec<usize> = (0..count).filter(|nth| matches!(places[*nth], Place::Start)).collect();
        for (_, values) in &alike {
            if starts.iter().any(|nth| values[*nth] != values[starts[0]]) {
                return Err(format!("the loop expects one random id of: {sql}").into());
            }
        }
        Ok(Self { sql, places })
    }

    fn about(&'static self, subject: Subject) -> Query<'static, Postgres, PgArguments> {
        let start = Uuid::new_v4();
        let mut query = sqlx::query(self.sql.as_str());
        for place in &self.places {
            query = match place {
                Place::Same(Value::Text(text)) => query.bind(text.as_deref()),
                Place::Same(Value::Number(number)) => query.bind(*number),
                Place::Same(Value::Id(id)) => query.bind(*id),
                Place::Session => query.bind(subject.session),
                Place::Work => query.bind(subject.work),
                Place::Machine => query.bind(subject.machine),
                Place::Fence => query.bind(subject.fence),
                Place::Start => query.bind(start),
                Place::Between(range) => query.bind(fastrand::i64(range.clone())),
            };
        }
        query
    }
}

impl Place {
    /// What a place is for that held these values.
    fn of(alike: &[(Subject, Vec<Value>)], nth: usize) -> Result<Self, Failure> {
        let is_always = |known: &dyn Fn(&Subject) -> Value| {
            let is_it = |(subject, values): &(Subject, Vec<Value>)| values.get(nth) == Some(&known(subject));
            alike.iter().all(is_it)
        };
        let first = &alike[0].1[nth];
        Ok(if is_always(&|subject| Value::Id(Some(subject.session))) {
            Self::Session
        } else if is_always(&|subject| Value::Id(Some(subject.work))) {
            Self::Work
        } else if is_always(&|subject| Value::Id(Some(subject.machine))) {
            Self::Machine
        } else if is_always(&|subject| Value::Number(Some(subject.fence))) {
            Self::Fence
        } else if is_always(&|_| first.clone()) {
            Self::Same(first.clone())
        } else {
            let held = alike.iter().map(|(_, values)| &values[nth]);
            let numbers: Option<Vec<i64>> = held
                .clone()
                .map(|value| match value {
                    Value::Number(number) => *number,
                    _ => None,
                })
                .collect();
            let numbers = numbers.unwrap_or_default();
            match numbers.iter().min().zip(numbers.iter().max()) {
                Some((least, most)) => Self::Between(*least..=*most),
                None if held.into_iter().all(|value| matches!(value, Value::Id(Some(_)))) => Self::Start,
                None => {
                    return Err(format!("the loop does not know what ${} is for, such as {first:?},", nth + 1).into());
                }
            }
        })
    }
}

/// The item that comes with a claim.
#[expect(dead_code, reason = "read as whoever works on the machine wants it, and nobody does")]
struct Item {
    machine: Uuid,
    provider: String,
    provider_id: String,
    reservation: Option<String>,
    address: Option<String>,
    location: Option<String>,
    status: String,
}

impl Item {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            machine: row.try_get("bmdb_item_machine_id")?,
            provider: row.try_get("bmdb_item_provider")?,
            provider_id: row.try_get("bmdb_item_provider_id")?,
            reservation: row.try_get("bmdb_item_reservation")?,
            address: row.try_get("bmdb_item_address")?,
            location: row.try_get("bmdb_item_location")?,
            status: row.try_get("bmdb_item_status")?,
        })
    }
}

pub(crate) struct ByHand {
    statements: &'static Statements,
    clients: Clients,
}

impl ByHand {
    pub(crate) async fn connect(url: &str, workers: usize, fleet: &Fleet) -> Result<Self, Failure> {
        let statements = STATEMENTS.get_or_try_init(watch).await?;
        // Whose hints they are.
        let bmdb = Bmdb::connect(Config::new(url, "bench", bmdb::runtime_info!())).await?;
        of::<AgentStart>(&bmdb).await;
        bmdb.close().await;
        fleet.hint_at_free().await?;
        let options = PgConnectOptions::from_str(url)?.options(SETTINGS);
        let clients = Clients::connect(options, workers, "loop").await?;
        Ok(Self { statements, clients })
    }

    pub(crate) async fn cycle(&self, worker: usize, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        let mut connection = self.clients.of(worker).await;
        let mut subject = Subject {
            session: self.clients.session,
            work: Uuid::new_v4(),
            machine: Uuid::nil(),
            fence: 0,
        };
        let (began, mut retries) = (Instant::now(), 0);
        let row = loop {
            match self.statements.claim.about(subject).fetch_one(&mut *connection).await {
                Ok(row) => break row,
                Err(error) if is_lost_race(&error) => retries += 1,
                Err(error) => return Err(error.into()),
            }
        };
        if row.try_get::<Option<Uuid>, _>("bmdb_work")?.is_none() {
            return Ok(None);
        }
        subject.machine = row.try_get("bmdb_machine")?;
        subject.fence = row.try_get("bmdb_fence")?;
        let before: Option<i64> = row.try_get("bmdb_attempts")?;
        if before.is_some() {
            return Err("the machine has failed before, and the loop is for first failures".into());
        }
        std::hint::black_box(Item::read(&row)?);
        let claim = began.elapsed();
        let machine = MachineId(subject.machine);
        fleet.claimed(machine);
        fleet.finishing(machine);
        let ended = self.statements.fail.about(subject).fetch_one(&mut *connection).await?;
        if ended.try_get::<Uuid, _>(0)? != subject.work {
            return Err("another work was ended".into());
        }
        fleet.finished(machine);
        Ok(Some(Cycle {
            machines: 1,
            claim,
            retries,
        }))
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        self.clients.leave().await
    }
}

/// Another claim took the machine while this one looked at it.
fn is_lost_race(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "23505")
}
