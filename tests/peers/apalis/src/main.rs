//! apalis on PostgreSQL, as its documentation runs it, for `bench --peers`.
//!
//! `bmdb-peer-apalis WORKERS JOBS one|batched`, with the database's URL in `BMDB_PEER_URL`. Says `ready` once JOBS jobs wait, and works from the
//! first line of its input until its input ends. It tells no latencies: jobs are fetched and acknowledged several at a time, behind the workers' backs.

use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage, queries};
use sqlx::postgres::PgPoolOptions;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::task::JoinSet;

const QUEUE: &str = "bench";

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn noop(_: usize) -> Result<(), BoxDynError> {
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [workers, jobs, mode] = arguments.as_slice() else {
        return Err("bmdb-peer-apalis WORKERS JOBS one|batched".into());
    };
    let (workers, jobs): (u32, usize) = (workers.parse()?, jobs.parse()?);
    let mut config = Config::default().queue(QUEUE);
    if mode == "batched" {
        config = config.batch_size(500);
    }
    let pool = PgPoolOptions::new()
        .max_connections(workers)
        .connect(&std::env::var("BMDB_PEER_URL")?)
        .await?;
    PostgresStorage::setup(&pool).await?;
    push(&pool, jobs).await?;
    println!("ready");
    let mut orders = BufReader::new(stdin()).lines();
    orders.next_line().await?;
    let mut all = JoinSet::new();
    for number in 0..workers {
        let storage = PostgresStorage::<usize>::new(&pool).with_config(config.clone());
        let worker = WorkerBuilder::new(format!("worker-{number}"))
            .backend(storage)
            .build(noop);
        all.spawn(worker.run());
    }
    loop {
        tokio::select! {
            order = orders.next_line() => if order?.is_none() {
                // What it holds is of no interest any more.
                return Ok(());
            },
            Some(ended) = all.join_next() => return Err(format!("a worker has ended: {ended:?}").into()),
        }
    }
}

async fn push(pool: &PgPool, jobs: usize) -> Result<(), Failure> {
    let mut connection = pool.acquire().await?;
    let numbers: Vec<usize> = (0..jobs).collect();
    for some in numbers.chunks(10_000) {
        let tasks = some
            .iter()
            .map(|number| TaskBuilder::new(number.to_string().into_bytes()).build());
        queries::push_tasks(&mut *connection, QUEUE, tasks.collect()).await?;
    }
    Ok(())
}
