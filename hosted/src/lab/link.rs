//! The kernel's side of the cable: bringing interfaces up and giving them addresses over rtnetlink
//! (rtnetlink(7)), which unlike the ioctls can add an IPv6 address that is usable at once.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// A conversation with the kernel about the interfaces of this thread's network namespace.
#[derive(Debug)]
pub struct Links {
    socket: OwnedFd,
    sequence: u32,
}

impl Links {
    /// # Errors
    /// The kernel has no rtnetlink.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Brings the interface `name` up.
    ///
    /// # Errors
    /// There is no such interface, or the kernel will not.
    pub fn up(&mut self, name: &str) -> io::Result<()> {
        self.set(name, UP)
    }

    /// Brings the interface `name` down. Its IPv6 addresses are gone with that.
    ///
    /// # Errors
    /// There is no such interface, or the kernel will not.
    pub fn down(&mut self, name: &str) -> io::Result<()> {
        self.set(name, 0)
    }

    /// Deletes the interface `name`, also while a program is attached to it.
    ///
    /// # Errors
    /// There is no such interface, or the kernel will not.
    pub fn delete(&mut self, name: &str) -> io::Result<()> {
        let body = interface(name, 0, 0)?;
        self.request(libc::RTM_DELLINK, 0, &body)
    }

    fn set(&mut self, name: &str, flags: u32) -> io::Result<()> {
        let body = interface(name, flags, UP)?;
        self.request(libc::RTM_NEWLINK, 0, &body)
    }

    /// Gives the interface `name` the address `ip`, in a network of `prefix` bits. It is usable when this
    /// returns: an IPv6 address is not first looked for on the link (RFC 4862, section 5.4), where nobody else
    /// is, and which would take a second.
    ///
    /// # Errors
    /// The kernel will not, for instance because it has no IPv6.
    pub fn add_address(&mut self, name: &str, ip: IpAddr, prefix: u8) -> io::Result<()> {
        const UNIVERSE: u8 = libc::RT_SCOPE_UNIVERSE;
        const AT_ONCE: u8 = libc::IFA_F_NODAD as u8;
        let family = match ip {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        let mut body = Body::default();
        // struct ifaddrmsg: family, prefix, flags, scope, index.
        body.put(&[family as u8, prefix, AT_ONCE, UNIVERSE]);
        body.put(&if_nametoindex(name)?.to_ne_bytes());
        match ip {
            IpAddr::V4(ip) => {
                body.attribute(libc::IFA_LOCAL, &ip.octets());
                body.attribute(libc::IFA_ADDRESS, &ip.octets());
                let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                let broadcast = u32::from(ip) | hosts;
                body.attribute(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
            }
            IpAddr::V6(ip) => {
                body.attribute(libc::IFA_LOCAL, &ip.octets());
                body.attribute(libc::IFA_ADDRESS, &ip.octets());
            }
        }
        self.request(
            libc::RTM_NEWADDR,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            &body,
        )
    }

    /// Sends one request and waits for the kernel's verdict, which it gives before the call returns.
    fn request(&mut self, kind: u16, flags: libc::c_int, body: &Body) -> io::Result<()> {
        self.sequence += 1;
        let message = message(kind, flags, self.sequence, body);
        sendto(
            self.socket.as_raw_fd(),
            &message,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut answer = [0; 1024];
        let len = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        verdict(answer.get(..len).unwrap_or(&answer))
    }
}

const UP: u32 = libc::IFF_UP as u32;

/// struct ifinfomsg for the interface `name`: family, padding, type, index, flags, and which flags to change.
fn interface(name: &str, flags: u32, change: u32) -> io::Result<Body> {
    let mut body = Body::default();
    body.put(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
    body.put(&if_nametoindex(name)?.to_ne_bytes());
    body.put(&flags.to_ne_bytes());
    body.put(&change.to_ne_bytes());
    Ok(body)
}

/// What follows the header of a message: a fixed structure, then attributes.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Every attribute here is a multiple of four bytes long, so none needs padding.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = (4 + value.len()) as u16;
        self.put(&len.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
    }
}

/// The length of struct nlmsghdr.
const HEADER: usize = 16;

fn message(kind: u16, flags: libc::c_int, sequence: u32, body: &Body) -> Vec<u8> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
    let mut message = Vec::with_capacity(HEADER + body.0.len());
    message.extend_from_slice(&((HEADER + body.0.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(&body.0);
    message
}

/// Reads struct nlmsgerr: after the header a negative error number, or zero for done.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let error = answer
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok());
    let (Some(kind), Some(error)) = (kind, error) else {
        return Err(Errno::EPROTO.into());
    };
    if i32::from(u16::from_ne_bytes(kind)) != libc::NLMSG_ERROR {
        return Err(Errno::EPROTO.into());
    }
    match i32::from_ne_bytes(error) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_header_and_its_attributes() {
        let mut body = Body::default();
        body.put(&[2, 24, 2, 0]);
        body.attribute(libc::IFA_LOCAL, &[192, 168, 69, 100]);
        let bytes = message(libc::RTM_NEWADDR, libc::NLM_F_CREATE, 7, &body);
        assert_eq!(bytes.len(), 28);
        assert_eq!(bytes[..4], 28_u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 20_u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x405_u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 7_u32.to_ne_bytes());
        assert_eq!(bytes[16..20], [2, 24, 2, 0]);
        assert_eq!(bytes[20..22], 8_u16.to_ne_bytes());
        assert_eq!(bytes[22..24], 2_u16.to_ne_bytes());
        assert_eq!(bytes[24..], [192, 168, 69, 100]);
    }

    #[test]
    fn the_kernels_verdict_is_an_error_number() {
        let answer = |kind: i32, error: i32| {
            let mut body = Body::default();
            body.put(&error.to_ne_bytes());
            message(kind as u16, 0, 1, &body)
        };
        let errno = |answer: &[u8]| {
            verdict(answer).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
        };
        assert_eq!(errno(&answer(libc::NLMSG_ERROR, 0)), Ok(()));
        assert_eq!(
            errno(&answer(libc::NLMSG_ERROR, -libc::EPERM)),
            Err(Errno::EPERM)
        );
        assert_eq!(errno(&answer(libc::NLMSG_NOOP, 0)), Err(Errno::EPROTO));
        assert_eq!(errno(&[]), Err(Errno::EPROTO));
    }
}
