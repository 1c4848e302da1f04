//! The system calls of a TAP device that no library wraps.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Socket, Type};

/// Where TAP devices come from.
pub const CONTROL: &str = "/dev/net/tun";

/// Opens [`CONTROL`], non-blocking, for the TAP device `name`, whole Ethernet frames without a header. With
/// `create`, one that does not exist is made, and goes when the descriptor is closed.
///
/// # Errors
/// As the system says: `NotFound` if there is no such device and `create` is false, `ResourceBusy` if another
/// has it, `PermissionDenied`, `InvalidInput` if `name` is no TAP device or no interface's name.
pub fn open_tap(name: &str, create: bool) -> io::Result<OwnedFd> {
    if !create && !exists(name) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let control = open_control()?;
    bind_tap(&control, name)?;
    if !create && !is_persistent(&control)? {
        // It was deleted after we looked, and root's request has just made another, which goes with `control`.
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(control)
}

/// Lets the device that `control` is attached to outlive it, until somebody deletes it or its network namespace ends.
///
/// # Errors
/// As the system says.
pub fn keep_tap(control: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the request reads no memory of ours.
    unsafe { raw::tun_set_persist(control.as_raw_fd(), 1) }?;
    Ok(())
}

/// Whether there is a network interface `name`, of any kind.
pub(super) fn exists(name: &str) -> bool {
    if_nametoindex(name).is_ok()
}

/// The first half of [`open_tap`]: whether the system lets us have TAP devices at all.
pub(super) fn open_control() -> io::Result<OwnedFd> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(CONTROL)?;
    Ok(control.into())
}

/// The second half: attaches `control` to the TAP device `name`, which is made if it does not exist and we may.
pub(super) fn bind_tap(control: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes one `ifreq` there, which `request` is.
    unsafe { raw::tun_set_iff(control.as_raw_fd(), &raw mut request) }?;
    Ok(())
}

/// Whether the device that `control` is attached to stays when nobody has it open: so it does if somebody made it
/// to be attached to.
pub(super) fn is_persistent(control: &OwnedFd) -> io::Result<bool> {
    let mut request = request("any")?;
    // SAFETY: the descriptor is open, and the kernel writes one `ifreq` there, which `request` is.
    unsafe { raw::tun_get_iff(control.as_raw_fd(), &raw mut request) }?;
    Ok(i32::from(flags(&request)) & libc::IFF_PERSIST != 0)
}

/// The longest IP packet that interface `name` carries, in bytes.
pub(super) fn mtu(name: &str) -> io::Result<usize> {
    let mut request = request(name)?;
    // SAFETY: the descriptor is open, and the kernel reads and writes one `ifreq` there, which `request` is.
    unsafe { raw::interface_mtu(any_socket()?.as_raw_fd(), &raw mut request) }?;
    // SAFETY: the kernel has just written this field of the union; and any bytes are an integer.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Whether interface `name` is set up.
pub(super) fn is_up(name: &str) -> io::Result<bool> {
    let mut request = request(name)?;
    // SAFETY: the descriptor is open, and the kernel reads and writes one `ifreq` there, which `request` is.
    unsafe { raw::interface_flags(any_socket()?.as_raw_fd(), &raw mut request) }?;
    Ok(i32::from(flags(&request)) & libc::IFF_UP != 0)
}

/// The requests: of tun(4) on [`CONTROL`], of netdevice(7) on any socket.
mod raw {
    nix::ioctl_readwrite_bad!(
        /// Attaches to the device that is named.
        tun_set_iff,
        libc::TUNSETIFF,
        libc::ifreq
    );
    nix::ioctl_read_bad!(
        /// Tells the name and the flags of the device attached to.
        tun_get_iff,
        libc::TUNGETIFF,
        libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        /// Keeps the device. It takes its argument as a number, not as a pointer, whatever its code says.
        tun_set_persist,
        libc::TUNSETPERSIST
    );
    nix::ioctl_readwrite_bad!(
        /// Tells the MTU of the interface that is named.
        interface_mtu,
        libc::SIOCGIFMTU,
        libc::ifreq
    );
    nix::ioctl_readwrite_bad!(
        /// Tells the flags of the interface that is named.
        interface_flags,
        libc::SIOCGIFFLAGS,
        libc::ifreq
    );
}

fn flags(request: &libc::ifreq) -> libc::c_short {
    // SAFETY: every byte of a request is set when it is made, and any bytes are an integer.
    unsafe { request.ifr_ifru.ifru_flags }
}

/// A request about interface `name`, all else zero.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: it is made of integers and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The kernel takes a `%` for a pattern, and the last byte must stay zero.
    let fits = !name.is_empty() && name.len() < request.ifr_name.len();
    if !fits || name.bytes().any(|byte| byte == b'%' || byte == 0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// A socket to ask about interfaces: any does.
fn any_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::DGRAM, None)
}
