//! The program: everything is in the library, see `src/lib.rs`.

fn main() {}
