//! What goes on, as it goes on: on a terminal, read only. What it says, `status`, `work ls`, `process ls` say in the same words.

mod columns;
mod draw;
mod screen;
mod shares;
mod sight;
mod terminal;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bmdb::MachineFilter;
use ratatui_core::backend::Backend;
use ratatui_crossterm::crossterm::event::Event;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::answer::{Answer, is_coloured};
use crate::cli::{Global, Process, Work};
use crate::commands::collect::stopped;
use crate::commands::{process, why, work};
use crate::facts::name::unreadable;
use crate::failure::Failure;
use crate::source::Source;

use screen::{Ask, Over, Screen, Wanted};
use sight::{Sight, Wish};

/// Ages count on while nothing is read.
const TICK: Duration = Duration::from_secs(1);

pub(super) async fn run(global: &Global) -> Result<Answer, Failure> {
    terminal::check()?;
    let source = Source::open_for(global, CONNECTIONS).await?;
    let ended = look(global, &source).await;
    source.close().await;
    ended?;
    Ok(Answer::new("It has ended.", json!({"ended": true})))
}

/// What moves, the counts, and what is opened are read beside each other.
const CONNECTIONS: u32 = 3;

/// Shows what is read, until it is told to stop.
async fn look(global: &Global, source: &Source) -> Result<(), Failure> {
    let format = global.format();
    let mut screen = Screen::new(format.ascii, is_coloured(format));
    let wish = Wish {
        works: AtomicUsize::new(screen.room(100)),
        paused: AtomicBool::new(false),
    };
    let (seen, mut sight) = watch::channel(Sight::default());
    let (answer, mut answered) = mpsc::channel(1);
    let (ask, asked) = mpsc::channel(1);
    let (mut terminal, typed) = terminal::Screen::take()?;
    tokio::select! {
        ended = show(&mut terminal, typed, &mut screen, source, &wish, &mut sight, &ask, &mut answered) => ended,
        signal = stopped() => signal,
        () = sight::keep(source, &wish, &seen) => Ok(()),
        () = read(source, asked, &answer) => Ok(()),
    }
}

/// What was asked for, and what came of it.
type Opened = (Ask, Result<Vec<String>, Failure>);

#[expect(
    clippy::too_many_arguments,
    reason = "they are the ends of the channels between what runs in `look`"
)]
async fn show(
    terminal: &mut terminal::Screen,
    mut typed: mpsc::UnboundedReceiver<Event>,
    screen: &mut Screen,
    source: &Source,
    wish: &Wish,
    sight: &mut watch::Receiver<Sight>,
    ask: &mpsc::Sender<Ask>,
    answered: &mut mpsc::Receiver<Opened>,
) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(TICK);
    loop {
        let seen = sight.borrow_and_update().clone();
        let size = terminal.terminal().backend().size().map_err(terminal::failed)?;
        wish.works.store(screen.room(size.height), Ordering::Relaxed);
        wish.paused.store(screen.is_paused, Ordering::Relaxed);
        let drawn = terminal.terminal().draw(|frame| {
            draw::all(screen, &seen, source.bmdb.name(), frame.buffer_mut(), Instant::now());
        });
        drawn.map_err(terminal::failed)?;
        tokio::select! {
            event = typed.recv() => match event {
                Some(Event::Key(key)) => match screen.press(key, &seen, usize::from(size.height / 2)) {
                    Some(Wanted::Quit) => return Ok(()),
                    // While another is being read, there is no room for it.
                    Some(Wanted::Read(wanted)) => screen.said = Some(match ask.try_send(wanted) {
                        Ok(()) => "is being read",
                        Err(_full) => "another is being read",
                    }),
                    None => {}
                },
                Some(_) => {}
                // The terminal is gone.
                None => return Ok(()),
            },
            Some((wanted, lines)) = answered.recv() => screen.over = page(&wanted, lines),
            changed = sight.changed() => if changed.is_err() { return Ok(()) },
            _ = tick.tick() => {}
        }
    }
}

fn page(ask: &Ask, lines: Result<Vec<String>, Failure>) -> Over {
    let title = match ask {
        Ask::Process(process) => format!("bmdb process show {}", crate::answer::words::quoted(process)),
        Ask::Work(work) => format!("bmdb work show {work}"),
        Ask::Why { machine, process } => {
            format!("bmdb machine why {machine} {}", crate::answer::words::quoted(process))
        }
    };
    let lines = lines.unwrap_or_else(|failure| vec![format!("✕ {}", failure.text)]);
    Over::Page { title, lines, top: 0 }
}

/// Reads what is asked for, one after the other.
async fn read(source: &Source, mut asked: mpsc::Receiver<Ask>, answer: &mpsc::Sender<Opened>) {
    while let Some(ask) = asked.recv().await {
        let lines = answer_to(source, &ask).await.map(|answer| answer.lines_of_text());
        if answer.send((ask, lines)).await.is_err() {
            return;
        }
    }
}

/// As the command says it that is the page's title.
async fn answer_to(source: &Source, ask: &Ask) -> Result<Answer, Failure> {
    match ask {
        Ask::Process(process) => {
            let process = process.clone();
            process::run(source, Process::Show { process }).await
        }
        Ask::Work(work) => work::run(source, Work::Show { work: *work }).await,
        Ask::Why { machine, process } => {
            let page = source.bmdb.machines(MachineFilter::new().ids([*machine])).await?;
            match (page.rows.first(), page.unreadable.first()) {
                (Some(machine), _) => why::why(source, machine, process).await,
                (None, Some(row)) => Err(unreadable(row)),
                (None, None) => Err(Failure::not_found(format!("there is no machine {machine} any more"))),
            }
        }
    }
}
