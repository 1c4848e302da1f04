//! A TAP device: Ethernet frames to and from the kernel, for smoltcp.

pub mod sys;

use std::os::fd::OwnedFd;

use crate::error::Error;

/// An existing TAP device, attached to.
#[derive(Debug)]
pub struct TapDevice {
    name: String,
    fd: Option<OwnedFd>,
}

impl TapDevice {
    /// Attaches to the TAP device `name`, which must exist.
    ///
    /// # Errors
    /// There is no such device or it may not be used ([`Exit::NotPermitted`](crate::error::Exit)), or another
    /// process has it ([`Exit::InUse`](crate::error::Exit)).
    pub fn attach(name: &str) -> Result<Self, Error> {
        let _ = name;
        todo!()
    }

    /// Takes over a TAP device that was opened with [`sys::open_tap`].
    ///
    /// # Errors
    /// Its MTU cannot be read.
    pub fn from_fd(name: &str, fd: OwnedFd) -> Result<Self, Error> {
        Ok(Self {
            name: name.to_owned(),
            fd: Some(fd),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the device is there.
    pub fn is_attached(&self) -> bool {
        self.fd.is_some()
    }
}
