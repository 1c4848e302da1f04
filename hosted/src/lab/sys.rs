//! The one system call of lab that no library wraps.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;

// TUNSETPERSIST of linux/if_tun.h takes its argument as a number, not as a pointer, whatever its code says.
nix::ioctl_write_int_bad!(
    tun_set_persist,
    nix::request_code_write!(b'T', 203, size_of::<libc::c_int>())
);

/// Lets the device outlive its descriptor, until its network namespace ends.
pub(super) fn keep_tap(tap: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the request reads no memory of ours.
    unsafe { tun_set_persist(tap.as_raw_fd(), 1) }?;
    Ok(())
}
