//! What the screen looks like at some sizes, against files that are kept beside this one: of a real fleet, with its times and ids set.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bmdb::machine::{self, NewMachine};
use bmdb::{Backoff, Bmdb, Config, Eligible, Fence, SessionId, WorkId, provided};
use chrono::{DateTime, TimeDelta, Utc};
use harness::{Backend, TestDatabase, until};
use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::time::Instant;
use uuid::Uuid;

use super::screen::{Ask, Over, Screen, Wanted};
use super::sight::{Sight, count, moves};
use super::{draw, page};
use crate::failure::{Failure, Kind};
use crate::source::Source;

struct Install;

impl bmdb::Process for Install {
    const NAME: &'static str = "install";
    const SLOT: &'static str = "os";
    const DESCRIPTION: &'static str = "installs an operating system";
    const BACKOFF: Backoff = Backoff::NONE.max_attempts(1);
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
    }
}

/// Two works, one of them asked to stop, and a parked machine.
async fn sight(db: &TestDatabase) -> Sight {
    let config = Config::new(db.url(), "shepherd-oak", "v1.2 on host-7");
    let bmdb = Bmdb::connect(config).await.expect("the database is good");
    let session = bmdb.start_session().await.expect("it is up");
    let new = ["OAK-1", "OAK-2", "OAK-3", "OAK-4"].map(|id| NewMachine::new("oak", id));
    let import = session.transact(async |tx| machine::import(tx, &new).await);
    import.await.expect("they can be imported");
    let install = bmdb.register(Install).await.expect("it is a good rule");
    let mut works = Vec::new();
    for id in ["OAK-1", "OAK-2", "OAK-3"] {
        let machine = machine::find(bmdb.reads(), "oak", id).await.expect("it can be read");
        let claim = session.claim(&install).on(machine.expect("it was imported")).await;
        works.push(claim.expect("it can be claimed").expect("it is eligible"));
    }
    works.remove(0).fail("no image").await.expect("it can fail");
    works[0].progress(&"3/5 copying").await.expect("it can be said");
    let ada = bmdb.operator("ada", "the rack moves").expect("it is a good reason");
    ada.ask_to_stop(works[1].id()).await.expect("it goes on");
    let source = Source { bmdb, reader: None };
    let (mut sight, took) = (Sight::default(), Duration::ZERO);
    sight
        .counts
        .take(Ok(fixed_counts(count(&source).await.expect("it can be counted"))), took);
    sight
        .moves
        .take(Ok(fixed_moves(moves(&source, 10).await.expect("it can be read"))), took);
    for work in works {
        work.cancel().await.expect("it can be let go");
    }
    session.close().await.expect("it can be closed");
    sight
}

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_796_126_400, 0).expect("it is a time")
}

fn fixed_counts(mut counts: super::sight::Counts) -> super::sight::Counts {
    for row in &mut counts.processes.rows {
        row.status.as_of = noon();
        row.status.used_at = Some(noon() - TimeDelta::minutes(4));
    }
    counts
}

fn fixed_moves(mut moves: super::sight::Moves) -> super::sight::Moves {
    moves.at = noon();
    moves.works.sort_by(|a, b| a.provider_id.cmp(&b.provider_id));
    for (place, work) in moves.works.iter_mut().enumerate() {
        let small = place as i64;
        work.as_of = noon();
        work.claimed_at = noon() - TimeDelta::minutes(47 - small);
        work.deadline = Some(noon() + TimeDelta::seconds(6));
        work.fence = Fence(1_796_000_000_000 + small);
        work.work = WorkId(Uuid::from_u128(1 + place as u128));
        work.session = SessionId(Uuid::from_u128(9));
    }
    moves
}

/// The lines of a screen of this size, three seconds after the last reading.
fn drawn(screen: &Screen, sight: &Sight, (columns, lines): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("it is no real one");
    let now = sight.moves.read.unwrap_or_else(Instant::now) + Duration::from_secs(3);
    let draws = terminal.draw(|frame| draw::all(screen, sight, "sqlite:fleet.sqlite", frame.buffer_mut(), now));
    draws.expect("it is no real one");
    let buffer = terminal.backend().buffer().clone();
    let rows = buffer.content.chunks(usize::from(columns));
    let line = |row: &[ratatui_core::buffer::Cell]| {
        let line: String = row.iter().map(ratatui_core::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    rows.map(line).collect()
}

/// Against a kept file; `BMDB_TEST_UPDATE=1` keeps it anew.
fn assert_kept(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/commands/top/screens/{name}.txt"));
    if std::env::var_os("BMDB_TEST_UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().expect("it has a folder")).expect("it can be made");
        std::fs::write(&file, text).expect("it can be written");
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, kept, "{name}: BMDB_TEST_UPDATE=1 keeps it anew");
}

fn press(screen: &mut Screen, sight: &Sight, code: KeyCode) -> Option<Wanted> {
    screen.press(KeyEvent::new(code, KeyModifiers::NONE), sight, 10)
}

#[tokio::test]
async fn the_screen_at_some_sizes() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let mut sight = sight(&db).await;
    let mut screen = Screen::new(false, true);
    assert_kept("80x24", &drawn(&screen, &sight, (80, 24)));
    assert_kept("120x40", &drawn(&screen, &sight, (120, 40)));
    assert_kept("44x14", &drawn(&screen, &sight, (44, 14)));
    assert_kept("too-small", &drawn(&screen, &sight, (60, 5)));
    let ascii = drawn(&Screen::new(true, false), &sight, (120, 40));
    assert!(ascii.is_ascii(), "{ascii}");
    assert_kept("ascii", &ascii);

    // Keys: the panes, a filter, an order, what is opened.
    press(&mut screen, &sight, KeyCode::Tab);
    assert_kept("processes", &drawn(&screen, &sight, (80, 24)));
    assert_eq!(
        press(&mut screen, &sight, KeyCode::Enter),
        Some(Wanted::Read(Ask::Process("install".to_owned())))
    );
    press(&mut screen, &sight, KeyCode::Tab);
    for letter in "/OAK-3".chars() {
        press(&mut screen, &sight, KeyCode::Char(letter));
    }
    press(&mut screen, &sight, KeyCode::Enter);
    press(&mut screen, &sight, KeyCode::Char('s'));
    assert!(screen.room(24) > 24, "what is looked for may be further down");
    assert_kept("filter", &drawn(&screen, &sight, (80, 24)));
    let why = press(&mut screen, &sight, KeyCode::Char('w'));
    assert!(
        matches!(why, Some(Wanted::Read(Ask::Why { ref process, .. })) if process == "install"),
        "{why:?}"
    );
    let work = Ask::Work(WorkId(Uuid::from_u128(2)));
    assert_eq!(
        press(&mut screen, &sight, KeyCode::Enter),
        Some(Wanted::Read(work.clone()))
    );
    screen.over = page(&work, Ok((0..50).map(|line| format!("line {line}")).collect()));
    press(&mut screen, &sight, KeyCode::PageDown);
    assert_kept("page", &drawn(&screen, &sight, (80, 24)));
    press(&mut screen, &sight, KeyCode::Esc);
    press(&mut screen, &sight, KeyCode::Char('?'));
    assert_kept("keys", &drawn(&screen, &sight, (80, 24)));
    press(&mut screen, &sight, KeyCode::Char('?'));
    assert!(matches!(screen.over, Over::Nothing));
    press(&mut screen, &sight, KeyCode::Esc);

    // A database that is away: what was seen stays, and says how old it is.
    sight.moves.trouble = Some(Failure::new(Kind::Unreachable, "the database does not answer"));
    assert_kept("stale", &drawn(&screen, &sight, (80, 24)));
    sight.moves.trouble = None;
    let (read, late) = (sight.moves.read.unwrap_or_else(Instant::now), Duration::from_secs(5));
    assert!(
        !sight.moves.is_stale(read + late / 2) && sight.moves.is_stale(read + late),
        "an answer that does not come says nothing"
    );
    let first = drawn(&Screen::new(false, false), &Sight::default(), (80, 24));
    assert!(first.contains("nothing was read yet"), "{first}");
    assert_eq!(press(&mut screen, &sight, KeyCode::Char('q')), Some(Wanted::Quit));
}

#[tokio::test]
async fn what_is_read_is_bounded_by_the_screen_and_trouble_keeps_what_was_seen() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let mut seen = sight(&db).await;
    let bmdb = Bmdb::connect(Config::new(db.url(), "shepherd", "v1"))
        .await
        .expect("the database is good");
    let session = bmdb.start_session().await.expect("it is up");
    let install = bmdb.register(Install).await.expect("it is a good rule");
    let mut claimed = Vec::new();
    until("three can be claimed", Duration::from_secs(30), async || {
        claimed.extend(session.claim_many(&install, 3).await.expect("the database is good"));
        claimed.len() == 3
    })
    .await;
    let source = Source { bmdb, reader: None };
    let some = moves(&source, 2).await.expect("it can be read");
    assert_eq!(some.works.len(), 2);
    assert!(some.works[0].claimed_at <= some.works[1].claimed_at);
    source.bmdb.close().await;
    let before = seen.moves.last.as_ref().map(Arc::as_ptr);
    seen.moves.take(moves_of(db.url()).await, Duration::ZERO);
    assert!(seen.moves.trouble.is_some());
    assert_eq!(seen.moves.last.as_ref().map(Arc::as_ptr), before);
}

/// Of a database that nobody can read any more.
async fn moves_of(url: &str) -> Result<super::sight::Moves, Failure> {
    let bmdb = Bmdb::connect(Config::new(url, "top", "v1"))
        .await
        .expect("the database is good");
    bmdb.clone().close().await;
    moves(&Source { bmdb, reader: None }, 10).await
}
