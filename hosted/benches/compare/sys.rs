//! The system calls that no library wraps without a cost: many datagrams in one call (recvmmsg(2), sendmmsg(2)), and
//! the socket options of the limits.

use std::ffi::CStr;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

/// The longest datagram that is received, in bytes.
const LONGEST: usize = 512;

/// Room for datagrams over IPv4, as recvmmsg fills it and sendmmsg takes it.
pub struct Batch {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
    payloads: Box<[[u8; LONGEST]]>,
    parts: Parts,
}

/// What comes and goes with each datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// The payload alone: the socket is connected.
    Payload,
    /// The peer's address too.
    Name,
    /// The peer's address and our own (ip(7), `IP_PKTINFO`).
    NameAndSource,
}

/// One control message, laid out as cmsg(3) has it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    source: libc::in_pktinfo,
}

impl Batch {
    /// For `size` datagrams at a time.
    pub fn new(size: usize, parts: Parts) -> Self {
        // SAFETY: all of these are integers and pointers, for which zero is a value.
        let (header, vector, name, control) = unsafe { zeroed() };
        Self {
            headers: vec![header; size].into(),
            vectors: vec![vector; size].into(),
            names: vec![name; size].into(),
            controls: vec![control; size].into(),
            payloads: vec![[0; LONGEST]; size].into(),
            parts,
        }
    }

    /// Datagrams at a time.
    pub fn size(&self) -> usize {
        self.headers.len()
    }

    /// Receives at least one datagram and all others that are there. Blocks until there is one, if the socket does.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        for i in 0..self.size() {
            self.vectors[i] = libc::iovec {
                iov_base: self.payloads[i].as_mut_ptr().cast(),
                iov_len: LONGEST,
            };
            self.prepare(i);
        }
        // SAFETY: each header points to memory of this batch that is as long as it says, and nobody else has it.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_WAITFORONE,
                null_mut(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// The payload of received datagram `i`.
    pub fn payload(&self, i: usize) -> &[u8] {
        &self.payloads[i][..self.headers[i].msg_len as usize]
    }

    /// The address and port that datagram `i` came from, as the system has them: only to be compared.
    pub fn name(&self, i: usize) -> (u32, u16) {
        (self.names[i].sin_addr.s_addr, self.names[i].sin_port)
    }

    /// Sets where datagram `i` goes, and, with [`Parts::NameAndSource`], from where.
    pub fn address(&mut self, i: usize, to: SocketAddrV4, source: Ipv4Addr) {
        let address = |ip: Ipv4Addr| libc::in_addr {
            s_addr: u32::from(ip).to_be(),
        };
        self.names[i] = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: to.port().to_be(),
            sin_addr: address(*to.ip()),
            sin_zero: [0; 8],
        };
        self.controls[i] = Control {
            header: libc::cmsghdr {
                // With the padding between the two, of which there is none.
                cmsg_len: (size_of::<libc::cmsghdr>() + size_of::<libc::in_pktinfo>()) as _,
                cmsg_level: libc::IPPROTO_IP,
                cmsg_type: libc::IP_PKTINFO,
            },
            source: libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: address(source),
                ipi_addr: address(source),
            },
        };
    }

    /// Sends `payload` to the first `count` addresses: those that were received from, or set. Returns when all are
    /// sent.
    pub fn send(&mut self, socket: &impl AsRawFd, count: usize, payload: &[u8]) -> io::Result<()> {
        for i in 0..count {
            self.vectors[i] = libc::iovec {
                iov_base: payload.as_ptr().cast_mut().cast(),
                iov_len: payload.len(),
            };
            self.prepare(i);
        }
        let mut sent = 0;
        while sent < count {
            let rest = &mut self.headers[sent..count];
            // SAFETY: each header points to memory that is as long as it says, which is only read, and lives as long
            // as this call.
            let now = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    0,
                )
            };
            sent += usize::try_from(now).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }

    /// Points header `i` to its memory.
    fn prepare(&mut self, i: usize) {
        let header = &mut self.headers[i].msg_hdr;
        header.msg_iov = &raw mut self.vectors[i];
        header.msg_iovlen = 1;
        if self.parts != Parts::Payload {
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        if self.parts == Parts::NameAndSource {
            header.msg_control = (&raw mut self.controls[i]).cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
    }
}

/// Sends `payload`, which is datagrams of `segment` bytes one after the other, 64 at most: the system cuts it (udp(7),
/// `UDP_SEGMENT`). `to` is a batch and the number of the datagram in it whose sender gets them; `None` on a connected
/// socket.
pub fn send_segmented(
    socket: &impl AsRawFd,
    to: Option<(&mut Batch, usize)>,
    payload: &[u8],
    segment: usize,
) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Segment {
        header: libc::cmsghdr,
        size: u16,
        _padding: [u8; 6],
    }
    let mut control = Segment {
        header: libc::cmsghdr {
            cmsg_len: (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _,
            cmsg_level: libc::SOL_UDP,
            cmsg_type: libc::UDP_SEGMENT,
        },
        size: segment as u16,
        _padding: [0; 6],
    };
    let mut vector = libc::iovec {
        iov_base: payload.as_ptr().cast_mut().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: it is made of integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    if let Some((batch, i)) = to {
        header.msg_name = (&raw mut batch.names[i]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    }
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Segment>() as _;
    // SAFETY: the header points to memory that is as long as it says, which is only read, and lives as long as this
    // call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, 0) };
    match sent {
        ..0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Asks for our own address with each datagram.
pub fn want_source(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
}

/// Lets a listener sleep until the first bytes of a connection are there (tcp(7)); for `seconds` at most.
pub fn defer_accept(listener: &impl AsRawFd, seconds: i32) -> io::Result<()> {
    set_option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// Lets `frames` wait in the interface `name` (netdevice(7)).
pub fn set_queue_len(name: &str, frames: u32) -> io::Result<()> {
    // SAFETY: it is made of integers and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // ifr_qlen, which the crate has no name for.
    request.ifr_ifru.ifru_metric = frames as i32;
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the descriptor is open, and the kernel reads one `ifreq` there, which `request` is.
    unsafe { raw::set_queue_len(any.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// How many bytes the peer of a stream has not acknowledged (tcp(7), `SIOCOUTQ`).
pub fn unacknowledged(stream: &impl AsRawFd) -> io::Result<usize> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and the kernel writes one integer there, which `bytes` is.
    unsafe { raw::unacknowledged(stream.as_raw_fd(), &raw mut bytes) }?;
    usize::try_from(bytes).map_err(io::Error::other)
}

/// A point in time as localtime_r(3) gives it, in a zone of our own.
pub fn broken_down(unix: i64, offset: i32, zone: &'static CStr) -> libc::tm {
    let there = unix + i64::from(offset);
    // SAFETY: it is made of integers and pointers, for which zero is a value.
    let mut time: libc::tm = unsafe { zeroed() };
    // SAFETY: it reads the one and writes the other, which are what it takes.
    unsafe { libc::gmtime_r(&raw const there, &raw mut time) };
    time.tm_gmtoff = offset.into();
    time.tm_zone = zone.as_ptr();
    time
}

/// strftime(3): how many bytes of `out` it wrote.
pub fn strftime(out: &mut [u8], format: &CStr, time: &libc::tm) -> usize {
    // SAFETY: it writes no more than it is told there is room for; the format ends with a NUL; and the zone of `time`
    // is a string that lives as long as the program, or none.
    unsafe { libc::strftime(out.as_mut_ptr().cast(), out.len(), format.as_ptr(), time) }
}

mod raw {
    nix::ioctl_write_ptr_bad!(set_queue_len, libc::SIOCSIFTXQLEN, libc::ifreq);
    nix::ioctl_read_bad!(unacknowledged, libc::TIOCOUTQ, libc::c_int);
}

fn set_option(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one integer there, which `value` is.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
