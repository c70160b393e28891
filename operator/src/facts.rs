//! What is so, as the command line and the console both tell it: read through the crate `bmdb`, without words and tables. A file for each noun.

pub(crate) mod attention;
pub(crate) mod backoff;
pub(crate) mod claims;
pub(crate) mod machine;
pub(crate) mod name;
pub(crate) mod operation;
pub(crate) mod pages;
pub(crate) mod process;
pub(crate) mod session;
pub(crate) mod why;
pub(crate) mod work;
