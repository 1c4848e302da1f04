//! The `smoltalk` command.
fn main() {}
