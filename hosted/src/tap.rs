//! A TAP device: Ethernet frames to and from the kernel, for smoltcp.
//!
//! Between this machine's kernel and us there is no wire, so what a wire makes necessary is left undone where the
//! kernel allows it: checksums of frames that were made here, and the cutting of long TCP segments and of runs of
//! datagrams into pieces. A frame that came over a wire is verified as always.

mod checksum;
mod header;
mod outbox;
pub mod sys;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::{NonZeroU16, NonZeroUsize};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use smoltalk::text::Shown;
use smoltalk::{Duration, Instant};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant as StackInstant;

use crate::error::{Error, reason};
use crate::network::NetworkEvent;
use crate::owner::tap_owner;
use header::Header;
use outbox::{Kernel, Outbox};

/// A TAP device, attached to. An interface that is set down, or a device that is deleted and made again, is survived:
/// frames are lost meanwhile, and [`poll_event`](Self::poll_event) tells.
#[derive(Debug)]
pub struct TapDevice {
    link: Link,
    outbox: Outbox,
    /// The frame last read, with the header before it. Apart from the rest, since it is lent while an answer to it
    /// is made.
    received: Box<[u8]>,
    /// The length of both, if the stack has not taken that frame yet.
    waiting: Option<usize>,
}

#[derive(Debug)]
struct Link {
    name: String,
    file: Option<File>,
    mtu: usize,
    is_up: bool,
    /// Frames read since there last were none, and how many it were then.
    run: u64,
    last_run: u64,
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
/// The MTU of a TAP device if nobody changed it.
const USUAL_MTU: usize = 1_500;

impl TapDevice {
    /// Attaches to the TAP device `name`, which must exist.
    ///
    /// # Errors
    /// There is no such device or it may not be used ([`Exit::NotPermitted`](crate::error::Exit)), or another
    /// process has it ([`Exit::InUse`](crate::error::Exit)).
    pub fn attach(name: &str) -> Result<Self, Error> {
        let mut devices = Self::attach_queues(name, 1)?;
        Ok(devices.remove(0))
    }

    /// Attaches to `count` queues, at least one, of the TAP device `name`, which must exist and must have been made
    /// for many queues if `count` is more than 1: one for each of as many stacks with the same addresses, in as many
    /// threads. The kernel puts each flow in one queue, that from which it had a frame of that flow last or else any,
    /// so a stack sees all of a connection or nothing.
    ///
    /// What belongs to no flow comes to any: each stack answers ARP, neighbour discovery and pings for all. But the
    /// answers to what a stack asked come to any, too. That does not matter to servers, which learn where their
    /// clients are from the clients' frames; clients should have a device for themselves. Nor does the kernel keep
    /// other programs from taking queues of such a device.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_queues(name: &str, count: usize) -> Result<Vec<Self>, Error> {
        // Asked first, since root's request to attach to a device that is not there would make one.
        if !sys::exists(name) {
            return Err(missing(name));
        }
        sys::open_control().map_err(|error| {
            let what = format!("TAP device {name}: {}: {}", sys::CONTROL, reason(&error));
            Error::not_permitted(what).with_hint(match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run as root, or let users in with `sudo chmod 0666 /dev/net/tun`"
                }
                _ => "this kernel has no TAP devices: `sudo modprobe tun` loads them where they are a module",
            })
        })?;
        let queues = sys::open_queues(name, false, count).map_err(|error| match error.kind() {
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
            io::ErrorKind::InvalidInput if sys::open_tap(name, false).is_ok() => {
                Error::not_permitted(format!("TAP device {name} has one queue, not {count}"))
                    .with_hint(format!("make it with `{} multi_queue`", recipe(name)))
            }
            io::ErrorKind::InvalidInput => Error::not_permitted(format!(
                "{name} is a network interface, but not a TAP device"
            ))
            .with_hint(format!("make one with `{}`", recipe("NAME"))),
            // It was deleted after we looked.
            io::ErrorKind::NotFound => missing(name),
            _ => Error::io(format_args!("TAP device {name}"), &error),
        })?;
        queues
            .into_iter()
            .map(|queue| Self::from_fd(name, queue))
            .collect()
    }

    /// Takes over a TAP device that was opened with [`sys::open_tap_with_header`] or [`sys::open_queues`].
    ///
    /// # Errors
    /// It is attached to no device.
    pub fn from_fd(name: &str, fd: OwnedFd) -> Result<Self, Error> {
        sys::set_offloads(&fd, true)
            .map_err(|error| Error::io(format_args!("TAP device {name}"), &error))?;
        Ok(Self {
            link: Link {
                name: name.to_owned(),
                file: Some(fd.into()),
                mtu: sys::mtu(name).unwrap_or(USUAL_MTU),
                is_up: true,
                run: 0,
                last_run: 0,
                look_at: None,
                told: VecDeque::new(),
                counters: Counters::default(),
            },
            outbox: Outbox::new(),
            received: vec![0; header::LEN + outbox::LONGEST].into_boxed_slice(),
            waiting: None,
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

    /// Whether a frame is there for the stack. Never waits, and costs one look at the queue at most: to be called
    /// over and over by those who would rather ask than sleep.
    pub fn has_frame(&mut self) -> bool {
        if self.waiting.is_none() {
            self.waiting = self.link.read(&mut self.received);
        }
        self.waiting.is_some()
    }

    /// Whether the device is there and its interface is up, as far as is known.
    pub fn is_well(&self) -> bool {
        self.link.is_well()
    }

    /// Hands to the kernel the datagrams that wait for more to the same receiver: to be called after each turn of
    /// the stack, though it has happened already if the turn ended because no more frames were there.
    pub fn flush(&mut self) {
        self.outbox.flush(&mut self.link);
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
        let Ok(control) = sys::open_tap_with_header(&self.name, false) else {
            return;
        };
        if sys::set_offloads(&control, true).is_err() {
            return;
        }
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

    /// Whether more frames than one are coming in at a time, as far as can be told.
    fn is_busy(&self) -> bool {
        self.run.max(self.last_run) > 1
    }

    /// Reads the next frame with its header into `buffer` and returns the length of both.
    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match self.file.as_mut()?.read(buffer) {
                Ok(len) => {
                    self.counters.received += 1;
                    self.run += 1;
                    return Some(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.run > 0 {
                        self.last_run = std::mem::take(&mut self.run);
                    }
                    return None;
                }
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
}

impl Kernel for Link {
    fn write(&mut self, frame: &[u8], datagrams: u16) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            self.counters.dropped += u64::from(datagrams);
            return Ok(());
        };
        match file.write(frame) {
            Ok(_) => {
                self.counters.sent += u64::from(datagrams);
                self.set_up(true);
                return Ok(());
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL) if datagrams > 1 => return Err(error),
                Some(libc::EIO) => self.set_up(false),
                Some(libc::EBADF | libc::EBADFD | libc::ENODEV | libc::ENXIO) => self.lose(),
                // It was this frame that the kernel had no room for.
                _ => {}
            },
        }
        self.counters.dropped += u64::from(datagrams);
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // A device that is there to stay keeps this, and the next program may not expect it.
            let _ = sys::set_offloads(file, false);
        }
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
        if !self.has_frame() {
            self.flush();
            return None;
        }
        let frame = self.received.get_mut(..self.waiting.take()?)?;
        let (head, frame) = frame.split_first_chunk_mut()?;
        // smoltcp takes no notice of an empty frame.
        let frame = match checksum::admits(&Header::from_bytes(*head), frame) {
            true => frame,
            false => &mut [],
        };
        let sending = Sending {
            link: &mut self.link,
            outbox: &mut self.outbox,
            segment: None,
        };
        Some((Received(frame), sending))
    }

    // Never `None`, also when there is no device: smoltcp would ask again at once, and for ever. What cannot be sent
    // is lost, as on any network.
    fn transmit(&mut self, _: StackInstant) -> Option<Sending<'_>> {
        Some(Sending {
            link: &mut self.link,
            outbox: &mut self.outbox,
            segment: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.link.mtu + HEADER;
        // We see to these, frame by frame.
        capabilities.checksum.tcp = Checksum::None;
        capabilities.checksum.udp = Checksum::None;
        // Not IPv6: smoltcp 0.14 drops long packets of that before it looks whether they are to be cut.
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(outbox::LONGEST);
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
pub struct Sending<'a> {
    link: &'a mut Link,
    outbox: &'a mut Outbox,
    segment: Option<NonZeroU16>,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Some(frame) = self.outbox.room(len) else {
            // Longer than what we told of allows: it is made, as it must be, and lost.
            self.link.counters.dropped += 1;
            return f(&mut vec![0; len]);
        };
        let result = f(frame);
        // One by itself would only lose time.
        let may_wait = self.link.is_busy();
        self.outbox.push(len, self.segment, may_wait, self.link);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
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
