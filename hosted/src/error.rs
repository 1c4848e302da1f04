//! What went wrong, in words for the person who has to do something about it, and the exit code that goes with it.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// It failed: no answer in time, refused, lost.
    Failed = 1,
    /// The command line or the configuration was wrong.
    Usage = 2,
    /// An address or a device is in use by another.
    InUse = 3,
    /// The system does not permit it, or lacks what it would need for it.
    NotPermitted = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure as it is told to a person: what failed and why, and what to do about it where that is known.
#[derive(Debug)]
pub struct Error {
    exit: Exit,
    what: String,
    hint: Option<String>,
}

impl Error {
    /// `what` failed: one sentence without a full stop, with the address or the device in it.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            hint: None,
        }
    }

    /// An [`Exit::Failed`].
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// An [`Exit::Usage`].
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// An [`Exit::InUse`].
    pub fn in_use(what: impl Into<String>) -> Self {
        Self::new(Exit::InUse, what)
    }

    /// An [`Exit::NotPermitted`].
    pub fn not_permitted(what: impl Into<String>) -> Self {
        Self::new(Exit::NotPermitted, what)
    }

    /// `what` failed because of `error`, with the exit code that fits that: [`Exit::NotPermitted`] where the
    /// system does not allow it, [`Exit::InUse`] where another has it, [`Exit::Failed`] for the rest.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            io::ErrorKind::AddrInUse | io::ErrorKind::ResourceBusy => Exit::InUse,
            _ => Exit::Failed,
        };
        let told = Self::new(exit, format!("{what}: {}", reason(error)));
        match error.raw_os_error() {
            Some(libc::EMFILE) => told.with_hint("allow more with `ulimit -n`"),
            _ => told,
        }
    }

    /// The same, with what to do about it: a sentence without a full stop, shown on a line of its own.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// How the program ends when this ends it.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// What the system says about `error`, in its words, without the number that Rust puts after them.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_follows_the_system_s_answer() {
        for (errno, exit) in [
            (libc::EACCES, Exit::NotPermitted),
            (libc::EPERM, Exit::NotPermitted),
            (libc::EADDRINUSE, Exit::InUse),
            (libc::EBUSY, Exit::InUse),
            (libc::EADDRNOTAVAIL, Exit::Failed),
        ] {
            let error = Error::io("UDP 192.0.2.1:9000", &io::Error::from_raw_os_error(errno));
            assert_eq!(error.exit(), exit, "{error}");
        }
    }

    #[test]
    fn too_few_descriptors_are_said_to_be_a_matter_of_the_limit() {
        let error = Error::io("x", &io::Error::from_raw_os_error(libc::EMFILE));
        assert!(error.hint().is_some_and(|hint| hint.contains("ulimit -n")));
    }

    #[test]
    fn it_reads_as_a_sentence_and_a_hint() {
        let error = Error::io(
            "TCP 127.0.0.1:80",
            &io::Error::from_raw_os_error(libc::EACCES),
        )
        .with_hint("choose a port from 1024 up");
        assert_eq!(
            error.to_string(),
            "TCP 127.0.0.1:80: Permission denied\nchoose a port from 1024 up"
        );
    }
}
