//! The terminal while it is ours, and as it was afterwards: however `top` ends.

use std::io::{IsTerminal, Stdout, stdin, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::cursor::{Hide, Show};
use ratatui_crossterm::crossterm::event::{self, Event};
use ratatui_crossterm::crossterm::execute;
use ratatui_crossterm::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc;

use crate::failure::{Failure, Kind};

/// So soon the reader of keys sees that it is over.
const LOOKS_UP: Duration = Duration::from_millis(100);

/// A terminal that shows only us. Dropped, it is as it was.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    ended: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// Where there is nobody who looks, there is nothing to show.
pub(super) fn check() -> Result<(), Failure> {
    if stdout().is_terminal() && stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage(
        "top shows itself on a terminal, and this is none. For a file or a program: bmdb status, bmdb work ls",
    ))
}

impl Screen {
    /// Takes the terminal, and answers what is typed.
    pub(super) fn take() -> Result<(Self, mpsc::UnboundedReceiver<Event>), Failure> {
        check()?;
        // A panic's message is to stand where it can be read.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            told(panic);
        }));
        let ended = Arc::new(AtomicBool::new(false));
        let (send, typed) = mpsc::unbounded_channel();
        enable_raw_mode().map_err(failed)?;
        let taken = execute!(stdout(), EnterAlternateScreen, Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        let terminal = match taken {
            Ok(terminal) => terminal,
            Err(error) => {
                restore();
                return Err(failed(error));
            }
        };
        let reads = Arc::clone(&ended);
        let reader = std::thread::spawn(move || read(&send, &reads));
        let screen = Self {
            terminal,
            ended,
            reader: Some(reader),
        };
        Ok((screen, typed))
    }

    pub(super) fn terminal(&mut self) -> &mut Terminal<CrosstermBackend<Stdout>> {
        &mut self.terminal
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            // The hook has told of its panic.
        }
        restore();
    }
}

pub(super) fn failed(error: std::io::Error) -> Failure {
    Failure::new(Kind::Unreachable, format!("the terminal cannot be used: {error}"))
}

/// What can be put back is; there is nobody to tell of the rest.
fn restore() {
    let _left = execute!(stdout(), Show, LeaveAlternateScreen);
    let _raw = disable_raw_mode();
}

/// Waits for keys on a thread of its own, for a read of a terminal cannot be given up. It ends with the terminal, which closes the channel.
fn read(send: &mpsc::UnboundedSender<Event>, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let typed = match event::poll(LOOKS_UP) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(_gone) => return,
        };
        let told = typed.ok().map(|typed| send.send(typed));
        if !matches!(told, Some(Ok(()))) {
            return;
        }
    }
}
