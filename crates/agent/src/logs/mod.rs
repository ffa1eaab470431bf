//! Container logs as CRI runtimes write them, read for whoever asks.
//!
//! A line of a log file is `TIME STREAM TAGS TEXT` (CRI's logging format). [`line`] reads one, [`Printer`] decides what of
//! it is shown (both pure); `tail` finds where to begin, [`read`] goes through the file and waits for more (`watch`), across its
//! rotation. Memory is bounded by a line and a block, whatever the size of the file.

pub mod line;
mod printer;
mod reader;
mod tail;
mod watch;

pub use printer::{Options, Printer, Wants};
pub use reader::{Ended, read};
