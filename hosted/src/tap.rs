//! A TAP device: Ethernet frames to and from the kernel, for smoltcp.

pub mod sys;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use smoltalk::text::Shown;
use smoltalk::{Duration, Instant};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as StackInstant;

use crate::error::{Error, reason};
use crate::network::NetworkEvent;
use crate::owner::tap_owner;

/// A TAP device, attached to. An interface that is set down, or a device that is deleted and made again, is survived:
/// frames are lost meanwhile, and [`poll_event`](Self::poll_event) tells.
#[derive(Debug)]
pub struct TapDevice {
    link: Link,
    /// The frame last read. Apart from the rest, since it is lent while an answer to it is written.
    received: Box<[u8]>,
}

#[derive(Debug)]
struct Link {
    name: String,
    file: Option<File>,
    mtu: usize,
    /// The frame being written.
    sending: Box<[u8]>,
    is_up: bool,
    /// While something is wrong: when to look again.
    look_at: Option<Instant>,
    told: VecDeque<NetworkEvent>,
    counters: Counters,
}

/// What passed through a [`TapDevice`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames from the kernel.
    pub received: u64,
    /// Frames to the kernel.
    pub sent: u64,
    /// Frames that the kernel would not have: the interface was down or gone, or had no room.
    pub dropped: u64,
}

/// How long between two looks whether what was wrong is right again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The header of an Ethernet frame, in bytes.
const HEADER: usize = 14;
/// The longest frame that a TAP device carries (its MTU is 65,521 at most), in bytes, rounded up.
const LONGEST: usize = 65_536;
/// The MTU of a TAP device if nobody changed it.
const USUAL_MTU: usize = 1_500;

impl TapDevice {
    /// Attaches to the TAP device `name`, which must exist.
    ///
    /// # Errors
    /// There is no such device or it may not be used ([`Exit::NotPermitted`](crate::error::Exit)), or another
    /// process has it ([`Exit::InUse`](crate::error::Exit)).
    pub fn attach(name: &str) -> Result<Self, Error> {
        // Asked first, since root's request to attach to a device that is not there would make one.
        if !sys::exists(name) {
            return Err(missing(name));
        }
        let control = sys::open_control().map_err(|error| {
            let what = format!("TAP device {name}: {}: {}", sys::CONTROL, reason(&error));
            Error::not_permitted(what).with_hint(match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run as root, or let users in with `sudo chmod 0666 /dev/net/tun`"
                }
                _ => "this kernel has no TAP devices: `sudo modprobe tun` loads them where they are a module",
            })
        })?;
        sys::bind_tap(&control, name).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => match tap_owner(name) {
                Some(owner) => Error::in_use(format!("TAP device {name} is in use by {owner}")),
                None => Error::in_use(format!("TAP device {name} is in use by another program"))
                    .with_hint("the system does not show us by which one: root could see it"),
            },
            io::ErrorKind::PermissionDenied => {
                Error::not_permitted(format!("TAP device {name} belongs to another user"))
                    .with_hint(format!(
                        "make it yours with `{}`, or run as root",
                        recipe(name)
                    ))
            }
            io::ErrorKind::InvalidInput => Error::not_permitted(format!(
                "{name} is a network interface, but not a TAP device"
            ))
            .with_hint(format!("make one with `{}`", recipe("NAME"))),
            _ => Error::io(format_args!("TAP device {name}"), &error),
        })?;
        if !sys::is_persistent(&control).unwrap_or(true) {
            // It was deleted after we looked, and the request has just made another, which goes with `control`.
            return Err(missing(name));
        }
        Self::from_fd(name, control)
    }

    /// Takes over a TAP device that was opened with [`sys::open_tap`]: non-blocking, and without a header before
    /// its frames.
    ///
    /// # Errors
    /// It is attached to no device.
    pub fn from_fd(name: &str, fd: OwnedFd) -> Result<Self, Error> {
        sys::is_persistent(&fd)
            .map_err(|error| Error::io(format_args!("TAP device {name}"), &error))?;
        Ok(Self {
            link: Link {
                name: name.to_owned(),
                file: Some(fd.into()),
                mtu: sys::mtu(name).unwrap_or(USUAL_MTU),
                sending: vec![0; LONGEST].into_boxed_slice(),
                is_up: true,
                look_at: None,
                told: VecDeque::new(),
                counters: Counters::default(),
            },
            received: vec![0; LONGEST].into_boxed_slice(),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.link.name
    }

    /// What passed through so far.
    pub fn counters(&self) -> Counters {
        self.link.counters
    }

    /// The descriptor that is ready to read when there are frames. `None`: the device is gone.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.link.file.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Looks whether what was wrong is right again, if it is time to. Returns when it wants to be called next,
    /// `None` while all is well. After a call the [`descriptor`](Self::descriptor) may be another.
    pub fn look(&mut self, now: Instant) -> Option<Instant> {
        self.link.look(now)
    }

    /// The next thing that happened to the device.
    pub fn poll_event(&mut self) -> Option<NetworkEvent> {
        self.link.told.pop_front()
    }
}

impl Link {
    fn is_well(&self) -> bool {
        self.file.is_some() && self.is_up
    }

    fn look(&mut self, now: Instant) -> Option<Instant> {
        if !self.is_well() && self.look_at.is_none_or(|at| at <= now) {
            self.look_at = Some(now + LOOK_EVERY);
            if self.file.is_none() {
                self.reattach();
            } else if sys::is_up(&self.name).unwrap_or(false) {
                self.set_up(true);
            }
        }
        if self.is_well() {
            self.look_at = None;
        }
        self.look_at
    }

    fn reattach(&mut self) {
        let Ok(control) = sys::open_tap(&self.name, false) else {
            return;
        };
        self.file = Some(control.into());
        self.mtu = sys::mtu(&self.name).unwrap_or(USUAL_MTU);
        self.told.push_back(NetworkEvent::DeviceBack {
            name: self.name.clone(),
        });
        // A new one is down as a rule, and then that is known before a frame is lost.
        self.is_up = sys::is_up(&self.name).unwrap_or(true);
        if !self.is_up {
            self.told.push_back(NetworkEvent::LinkDown {
                name: self.name.clone(),
            });
        }
    }

    fn set_up(&mut self, up: bool) {
        if up != self.is_up {
            self.is_up = up;
            let name = self.name.clone();
            self.told.push_back(if up {
                NetworkEvent::LinkUp { name }
            } else {
                NetworkEvent::LinkDown { name }
            });
        }
    }

    /// The device is deleted, or so broken that only another can help.
    fn lose(&mut self) {
        if self.file.take().is_some() {
            self.is_up = true;
            self.told.push_back(NetworkEvent::DeviceLost {
                name: self.name.clone(),
            });
        }
    }

    /// Reads the next frame into `buffer` and returns its length.
    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match self.file.as_mut()?.read(buffer) {
                Ok(len) => {
                    self.counters.received += 1;
                    return Some(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // While the interface is down there is nothing to read.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    self.set_up(false);
                    return None;
                }
                Err(_) => {
                    self.lose();
                    return None;
                }
            }
        }
    }

    /// Writes the frame in the buffer.
    fn write(&mut self, len: usize) {
        let Some(file) = &mut self.file else {
            self.counters.dropped += 1;
            return;
        };
        match file.write(&self.sending[..len]) {
            Ok(_) => {
                self.counters.sent += 1;
                self.set_up(true);
                return;
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EIO) => self.set_up(false),
                Some(libc::EBADF | libc::EBADFD | libc::ENODEV | libc::ENXIO) => self.lose(),
                // It was this frame that the kernel had no room for.
                _ => {}
            },
        }
        self.counters.dropped += 1;
    }
}

/// There is no TAP device `name`.
fn missing(name: &str) -> Error {
    let shown = Shown(name.as_bytes());
    Error::not_permitted(format!("there is no TAP device {shown}")).with_hint(format!(
        "make one with `{}`, or use `smoltalk lab`, which makes its own",
        recipe(&shown.to_string())
    ))
}

/// How root makes a TAP device for a user.
fn recipe(name: &str) -> String {
    format!("sudo ip tuntap add dev {name} mode tap user $USER")
}

impl Device for TapDevice {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received<'_>, Sending<'_>)> {
        let len = self.link.read(&mut self.received)?;
        let frame = self.received.get(..len)?;
        Some((Received(frame), Sending(&mut self.link)))
    }

    // Never `None`, also when there is no device: smoltcp would ask again at once, and for ever. What cannot be sent
    // is lost, as on any network.
    fn transmit(&mut self, _: StackInstant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.link))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.link.mtu + HEADER;
        capabilities
    }
}

/// A frame from the kernel.
#[derive(Debug)]
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame to the kernel.
#[derive(Debug)]
pub struct Sending<'a>(&'a mut Link);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Some(frame) = self.0.sending.get_mut(..len) else {
            // Longer than the MTU that we told of allows: it is written, as it must be, and lost.
            self.0.counters.dropped += 1;
            return f(&mut vec![0; len]);
        };
        let result = f(frame);
        self.0.write(len);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_name_that_is_no_tap_device_is_refused_and_nothing_is_made() {
        for (name, what) in [
            ("smoltalk-no-tap", "there is no TAP device smoltalk-no-tap"),
            ("", "there is no TAP device "),
            ("tap%d", "there is no TAP device tap%d"),
            ("a\u{1b}[1mb", "there is no TAP device a\\x1b[1mb"),
            ("longer-than-any-interface", "there is no TAP device"),
        ] {
            let error = TapDevice::attach(name).unwrap_err();
            assert_eq!(error.exit(), Exit::NotPermitted, "{error}");
            assert!(error.to_string().starts_with(what), "{error}");
            assert!(error.hint().unwrap().contains("ip tuntap add"), "{error}");
            assert!(!sys::exists(name));
        }
    }

    #[test]
    fn the_system_s_facts_about_an_interface_are_read() {
        assert!(sys::is_up("lo").unwrap());
        assert!(sys::mtu("lo").unwrap() >= 1_280);
        let error = sys::mtu("smoltalk-no-tap").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert_eq!(
            sys::open_tap("smoltalk-no-tap", false).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
