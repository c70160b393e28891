//! What `bmdb demo` takes.

use std::path::PathBuf;

use clap::Args;

use crate::cli::values::{Span, span};

/// What is shown, and for how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Demo {
    /// Make this file, and keep it. By default a file in a temporary folder, removed at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// End by itself after so long: 20s, 5m. By default at Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    pub(crate) span: Option<Span>,
    /// Be a component of it
    #[arg(long, hide = true, value_name = "NAME")]
    pub(crate) component: Option<String>,
}
