//! The system calls of a TAP device that no library wraps.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Socket, Type};

/// Where TAP devices come from.
pub const CONTROL: &str = "/dev/net/tun";

/// Opens [`CONTROL`], non-blocking, for the TAP device `name`: whole Ethernet frames and nothing else. With `create`,
/// one that does not exist is made, and goes when the descriptor is closed.
///
/// # Errors
/// As the system says: `NotFound` if there is no such device and `create` is false, `ResourceBusy` if another
/// has it, `PermissionDenied`, `InvalidInput` if `name` is no TAP device or no interface's name.
pub fn open_tap(name: &str, create: bool) -> io::Result<OwnedFd> {
    open(name, create, 0)
}

/// As [`open_tap`], for [`TapDevice::from_fd`](super::TapDevice::from_fd): each frame has a `struct virtio_net_hdr`
/// before it.
///
/// # Errors
/// Those of [`open_tap`].
pub fn open_tap_with_header(name: &str, create: bool) -> io::Result<OwnedFd> {
    open(name, create, libc::IFF_VNET_HDR)
}

/// As [`open_tap_with_header`], `count` times: each is a queue of its own, in which the kernel puts the frames of
/// some of the flows. A device that exists must have been made for that.
///
/// # Errors
/// Those of [`open_tap`]; `InvalidInput` also if the device has one queue only.
pub fn open_queues(name: &str, create: bool, count: usize) -> io::Result<Vec<OwnedFd>> {
    if count == 1 {
        return Ok(vec![open_tap_with_header(name, create)?]);
    }
    let flags = libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    // Only the first can make a device, or find that there is none any more.
    (0..count)
        .map(|queue| open(name, create || queue > 0, flags))
        .collect()
}

fn open(name: &str, create: bool, flags: libc::c_int) -> io::Result<OwnedFd> {
    if !create && !exists(name) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let control = open_control()?;
    match bind_tap(&control, name, flags) {
        // It may be one with many queues, of which we want one.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput && !create => {
            bind_tap(&control, name, flags | libc::IFF_MULTI_QUEUE)
        }
        bound => bound,
    }?;
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

/// Whether the system lets us have TAP devices at all.
pub(super) fn open_control() -> io::Result<OwnedFd> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(CONTROL)?;
    Ok(control.into())
}

/// Attaches `control` to the TAP device `name`, which is made if it does not exist and we may.
fn bind_tap(control: &OwnedFd, name: &str, flags: libc::c_int) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | flags) as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes one `ifreq` there, which `request` is.
    unsafe { raw::tun_set_iff(control.as_raw_fd(), &raw mut request) }?;
    // Others may have told a device that exists another length.
    let header_len = super::header::LEN as libc::c_int;
    // SAFETY: the descriptor is open, and the kernel reads one integer there.
    unsafe { raw::tun_set_header_len(control.as_raw_fd(), &raw const header_len) }?;
    Ok(())
}

/// Whether the kernel may leave undone, in what it hands out through the device that `control` is attached to, the
/// checksums of TCP and UDP and the cutting of TCP's long segments. Not that of datagrams: smoltcp could not take
/// them apart.
pub(super) fn set_offloads(control: &impl AsRawFd, on: bool) -> io::Result<()> {
    let offloads = match on {
        true => libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6,
        false => 0,
    };
    // SAFETY: the descriptor is open, and the request reads no memory of ours.
    unsafe { raw::tun_set_offload(control.as_raw_fd(), offloads as libc::c_int) }?;
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
    nix::ioctl_write_int_bad!(
        /// Says what may be left undone. It takes its argument as a number, too.
        tun_set_offload,
        libc::TUNSETOFFLOAD
    );
    nix::ioctl_write_ptr_bad!(
        /// Says how long the header before each frame is.
        tun_set_header_len,
        libc::TUNSETVNETHDRSZ,
        libc::c_int
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
