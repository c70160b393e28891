//! A program that works for the bench in a process of its own, and is told what to do line by line.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Failure;

/// How long a program may take to prepare, and to answer at its end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program that runs; it is killed if it is dropped.
pub(crate) struct Running {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (orders, answers) = child.stdin.take().zip(child.stdout.take()).ok_or("both are piped")?;
        Ok(Self {
            child,
            orders,
            answers: BufReader::new(answers).lines(),
        })
    }

    pub(crate) fn process(&self) -> Result<u32, Failure> {
        self.child.id().ok_or_else(|| "the program has ended".into())
    }

    pub(crate) async fn tell(&mut self, order: &str) -> Result<(), Failure> {
        self.orders.write_all(format!("{order}\n").as_bytes()).await?;
        Ok(())
    }

    /// Waits until it says this.
    pub(crate) async fn says(&mut self, expected: &str) -> Result<(), Failure> {
        match tokio::time::timeout(PATIENCE, self.answers.next_line()).await?? {
            Some(line) if line == expected => Ok(()),
            Some(line) => Err(format!("the program says {line:?}, not {expected:?}").into()),
            None => Err(format!("the program has ended: {}", self.child.wait().await?).into()),
        }
    }

    /// Ends its input, and waits for its end. Answers what it says last.
    pub(crate) async fn end(self) -> Result<Vec<String>, Failure> {
        let Self {
            mut child,
            orders,
            mut answers,
        } = self;
        drop(orders);
        let mut lines = Vec::new();
        while let Some(line) = tokio::time::timeout(PATIENCE, answers.next_line()).await?? {
            lines.push(line);
        }
        let status = tokio::time::timeout(PATIENCE, child.wait()).await??;
        if !status.success() {
            return Err(format!("the program has ended: {status}").into());
        }
        Ok(lines)
    }
}
