//! The program: everything is in the library, see `src/lib.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ipvsd::cli::main()
}
