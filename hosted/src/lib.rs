//! smoltalk on a machine with an operating system.
