//! `sendmmsg(2)`, with the control messages that our datagrams need.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{mem, ptr};

use socket2::SockAddr;

/// A datagram, or several that the system is to cut apart.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub to: SocketAddr,
    /// The address of ours that it is to leave from.
    pub source: Option<IpAddr>,
    pub payload: &'a [u8],
    /// The length of each datagram in `payload` but the last, if there are several.
    pub segment: Option<u16>,
}

/// What the system reads while it sends, kept so that it need not be allocated for each call.
#[derive(Default)]
pub struct SendBuffers {
    addresses: Vec<SockAddr>,
    controls: Vec<Control>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl SendBuffers {
    /// Sends `messages` from the socket, which is IPv6 if `is_ipv6`, and returns how many have left: at least one.
    ///
    /// # Errors
    /// Why the first one could not leave. What kept a later one back comes out when that is the first.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        is_ipv6: bool,
        messages: impl Iterator<Item = Message<'a>>,
    ) -> io::Result<usize> {
        let Self {
            addresses,
            controls,
            slices,
            headers,
        } = self;
        addresses.clear();
        controls.clear();
        slices.clear();
        headers.clear();
        for message in messages {
            let to = match message.to {
                SocketAddr::V4(to) if is_ipv6 => {
                    SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0).into()
                }
                to => to,
            };
            addresses.push(to.into());
            controls.push(Control::new(message.source, message.segment));
            slices.push(libc::iovec {
                iov_base: message.payload.as_ptr().cast_mut().cast(),
                iov_len: message.payload.len(),
            });
        }
        // Nothing is added any more, so nothing moves.
        for ((address, control), slice) in addresses.iter().zip(controls.iter()).zip(&mut *slices) {
            // SAFETY: it consists of numbers and pointers, all of which may be zero.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = address.len();
            header.msg_hdr.msg_iov = ptr::from_mut(slice);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.bytes.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_controllen = control.len as _;
            headers.push(header);
        }
        loop {
            // SAFETY: there are `headers.len()` of them. What they point at (addresses, control messages and slices
            // in `self`, payloads that live for 'a) is as long as they say, stays where it is, and is only read.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    headers.len() as _,
                    0,
                )
            };
            if let Ok(sent) = usize::try_from(sent) {
                return Ok(sent);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl fmt::Debug for SendBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBuffers").finish_non_exhaustive()
    }
}

/// Control messages as Linux reads them: each a length (of `size_t`, header included), a level and a type (of `int`),
/// and its data, padded to the size of a `size_t` (cmsg(3)).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control {
    bytes: [u8; 64],
    len: usize,
}

impl Control {
    fn new(source: Option<IpAddr>, segment: Option<u16>) -> Self {
        let mut control = Self {
            bytes: [0; 64],
            len: 0,
        };
        match source {
            Some(IpAddr::V4(source)) => {
                // struct in_pktinfo: interface, the source, and an address that is not looked at.
                let mut data = [0; 12];
                data[4..8].copy_from_slice(&source.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
            }
            Some(IpAddr::V6(source)) => {
                // struct in6_pktinfo: the source, and an interface.
                let mut data = [0; 20];
                data[..16].copy_from_slice(&source.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
            }
            None => {}
        }
        if let Some(segment) = segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        control
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        const HEADER: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();
        let len = HEADER + data.len();
        let mut at = self.len;
        for part in [
            len.to_ne_bytes().as_slice(),
            &level.to_ne_bytes(),
            &kind.to_ne_bytes(),
            data,
        ] {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.len = at.next_multiple_of(size_of::<usize>());
    }
}
