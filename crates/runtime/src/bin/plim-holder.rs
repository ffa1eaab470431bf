//! The holder as a program of its own, for tests and examples; `plim` has it inside.

use std::process::ExitCode;

fn main() -> ExitCode {
    match runtime::holder::dir_of_arguments(std::env::args_os().skip(1)) {
        Some(dir) => runtime::holder::main(&dir),
        None => ExitCode::FAILURE,
    }
}
