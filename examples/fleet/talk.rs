//! The one place that writes to the terminal: progress and talk on stderr, data on stdout.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How often progress is said where there is no terminal to draw it on.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Stderr: live bars on a terminal, plain lines elsewhere.
#[derive(Clone)]
pub(crate) struct Talk {
    bars: MultiProgress,
    live: bool,
}

impl Talk {
    /// Takes over stderr, the log included. `RUST_LOG` says how much is logged; warnings by default.
    pub(crate) fn new() -> Self {
        let live = io::stderr().is_terminal();
        let target = if live {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let talk = Self {
            bars: MultiProgress::with_draw_target(target),
            live,
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("warn"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(live)
            .with_writer(talk.clone())
            .init();
        talk
    }

    /// Says one line, above the bars.
    pub(crate) fn say(&self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    /// Writes as it is, above the bars. A reader that has gone away is no reason to stop.
    fn write(&self, bytes: &[u8]) {
        let _nobody_reads = self.bars.suspend(|| io::stderr().write_all(bytes));
    }

    /// A bar that is drawn on a terminal and said now and then elsewhere. `template` is indicatif's.
    pub(crate) fn bar(&self, name: &str, template: &str) -> Bar {
        let style = ProgressStyle::with_template(template).expect("BUG: the templates are constants");
        let bar = ProgressBar::new(0)
            .with_prefix(name.to_owned())
            .with_style(style.progress_chars("=> "));
        Bar {
            bar: self.bars.add(bar),
            talk: self.clone(),
            name: name.to_owned(),
            said: Instant::now(),
        }
    }
}

/// Progress of one thing.
pub(crate) struct Bar {
    bar: ProgressBar,
    talk: Talk,
    name: String,
    said: Instant,
}

impl Bar {
    /// Shows where it stands; `length` may change.
    pub(crate) fn show(&mut self, position: u64, length: u64, message: String) {
        if !self.talk.live && self.said.elapsed() >= SAY_EVERY {
            self.said = Instant::now();
            self.talk.say(&format!("{}: {message}", self.name));
        }
        self.bar.set_length(length);
        self.bar.set_position(position);
        self.bar.set_message(message);
    }
}

impl Drop for Bar {
    /// Leaves the bar on the screen as it is.
    fn drop(&mut self) {
        self.bar.abandon();
    }
}

impl MakeWriter<'_> for Talk {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Takes the lines of the log.
impl Write for Talk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::write(self, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints data on stdout.
///
/// # Errors
/// When it cannot be written. A reader that has read enough is no error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
