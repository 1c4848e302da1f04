//! The system calls of a TAP device that no library wraps.

use std::io;
use std::os::fd::OwnedFd;

/// Opens `/dev/net/tun`, non-blocking, for the TAP device `name`, whole Ethernet frames without a header. With
/// `create`, one that does not exist is made, and goes when the descriptor is closed.
///
/// # Errors
/// As the system says: `NotFound` if there is no such device and `create` is false, `ResourceBusy` if another
/// has it, `PermissionDenied`, `InvalidInput` if `name` is no TAP device or no interface's name.
pub fn open_tap(name: &str, create: bool) -> io::Result<OwnedFd> {
    let _ = (name, create);
    todo!()
}
