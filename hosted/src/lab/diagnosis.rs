//! Why a lab is not permitted, and what to do about it.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::error::Error;
use crate::tap::sys::CONTROL;

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// What the system says about what a lab needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The process is root, of the machine or of a container.
    pub(super) root: bool,
    /// The effective capabilities, a bit for each (capabilities(7)).
    pub(super) capabilities: u64,
    /// A seccomp filter is on, as in most containers.
    pub(super) filtered: bool,
    /// Why `/dev/net/tun` cannot be opened, if so.
    pub(super) tun: Option<Errno>,
    /// The permission bits of `/dev/net/tun`.
    pub(super) tun_mode: Option<u32>,
    /// The sysctls that limit namespaces; `None` where the kernel does not have them.
    pub(super) unprivileged_userns_clone: Option<u64>,
    pub(super) apparmor_restrict_unprivileged_userns: Option<u64>,
    pub(super) max_user_namespaces: Option<u64>,
    pub(super) max_net_namespaces: Option<u64>,
    pub(super) max_pid_namespaces: Option<u64>,
}

/// What the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) step: Step,
    pub(super) errno: Errno,
}

/// The steps that can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Making the namespaces.
    Namespaces,
    /// Becoming root of the new user namespace.
    IdentityMap,
    /// Making the TAP device in the new network namespace.
    Device,
}

impl Facts {
    /// Asks the system.
    pub(super) fn gather() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map_or("", str::trim)
        };
        Self {
            root: geteuid().is_root(),
            capabilities: u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0),
            filtered: field("Seccomp:") == "2",
            tun: OpenOptions::new()
                .read(true)
                .write(true)
                .open(CONTROL)
                .err()
                .map(|error| errno(&error)),
            tun_mode: fs::metadata(CONTROL)
                .ok()
                .map(|tun| tun.permissions().mode() & 0o7777),
            unprivileged_userns_clone: sysctl("kernel/unprivileged_userns_clone"),
            apparmor_restrict_unprivileged_userns: sysctl(
                "kernel/apparmor_restrict_unprivileged_userns",
            ),
            max_user_namespaces: sysctl("user/max_user_namespaces"),
            max_net_namespaces: sysctl("user/max_net_namespaces"),
            max_pid_namespaces: sysctl("user/max_pid_namespaces"),
        }
    }

    /// Whether a network namespace with a TAP device can be made without a user namespace.
    pub(super) fn may_make_networks(&self) -> bool {
        let has = |capability: u32| self.capabilities >> capability & 1 == 1;
        has(CAP_SYS_ADMIN) && has(CAP_NET_ADMIN)
    }
}

/// Says what stands in the way of a lab: `/dev/net/tun` if it cannot be opened, and what was refused. Each comes
/// with the command that would give it.
pub(super) fn diagnose(facts: &Facts, refusal: Option<Refusal>) -> Error {
    let mut obstacles = Vec::new();
    if let Some(errno) = facts.tun {
        obstacles.push(about_tun(facts, errno));
    }
    if let Some(refusal) = refusal {
        about_refusal(facts, refusal, &mut obstacles);
    }
    let mut what = "lab is not permitted here".to_owned();
    let mut hint = String::new();
    for (count, obstacle) in obstacles.iter().enumerate() {
        what.push_str(if count == 0 { ": " } else { "; and " });
        what.push_str(&obstacle.what);
        if count > 0 {
            hint.push('\n');
        }
        hint.push_str(&obstacle.remedy);
    }
    if !facts.root {
        hint.push_str("\nor run it as root: sudo smoltalk lab");
    }
    Error::not_permitted(what).with_hint(hint)
}

/// Something that stands in the way, and how to remove it.
struct Obstacle {
    what: String,
    remedy: String,
}

impl Obstacle {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// One that a command of root's removes.
    fn command(facts: &Facts, what: impl Into<String>, command: &str) -> Self {
        let sudo = if facts.root { "" } else { "sudo " };
        Self::new(what, format!("to allow it: {sudo}{command}"))
    }
}

fn about_tun(facts: &Facts, errno: Errno) -> Obstacle {
    const TO_THE_CONTAINER: &str =
        "to allow it start the container with --device /dev/net/tun --cap-add NET_ADMIN";
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => {
            let mut missing =
                Obstacle::command(facts, format!("{CONTROL} is missing"), "modprobe tun");
            missing
                .remedy
                .push_str(" (in a container: start it with --device /dev/net/tun)");
            missing
        }
        Errno::ENODEV | Errno::ENXIO => Obstacle::command(
            facts,
            format!("{CONTROL} is there, but the kernel's tun driver is not"),
            "modprobe tun",
        ),
        // Root is above modes, so for root it is as if the container had none.
        Errno::EACCES if !facts.root => {
            let mut what = format!("{CONTROL} may not be opened");
            if let Some(mode) = facts.tun_mode {
                let _ = write!(what, ", its mode is {mode:04o}");
            }
            Obstacle::command(facts, what, "chmod 0666 /dev/net/tun")
        }
        Errno::EPERM | Errno::EACCES => Obstacle::new(
            format!("{CONTROL} is withheld from this container"),
            TO_THE_CONTAINER,
        ),
        errno => Obstacle::new(
            format!("{CONTROL} cannot be opened: {}", errno.desc()),
            TO_THE_CONTAINER,
        ),
    }
}

fn about_refusal(facts: &Facts, refusal: Refusal, obstacles: &mut Vec<Obstacle>) {
    let before = obstacles.len();
    let denied = matches!(refusal.errno, Errno::EPERM | Errno::EACCES);
    if denied && !facts.root && facts.unprivileged_userns_clone == Some(0) {
        obstacles.push(Obstacle::command(
            facts,
            "user namespaces are off for ordinary users (kernel.unprivileged_userns_clone is 0)",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ));
    }
    if denied && !facts.root && facts.apparmor_restrict_unprivileged_userns == Some(1) {
        obstacles.push(Obstacle::command(
            facts,
            "AppArmor keeps user namespaces from ordinary users \
             (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ));
    }
    for (kind, limit) in [
        ("user", facts.max_user_namespaces),
        ("net", facts.max_net_namespaces),
        ("pid", facts.max_pid_namespaces),
    ] {
        if limit == Some(0) {
            obstacles.push(Obstacle::command(
                facts,
                format!("{kind} namespaces are off (user.max_{kind}_namespaces is 0)"),
                &format!("sysctl -w user.max_{kind}_namespaces=15000"),
            ));
        }
    }
    if obstacles.len() > before {
        return;
    }
    let step = match refusal.step {
        Step::Namespaces => "making namespaces",
        Step::IdentityMap => "becoming root of a user namespace",
        Step::Device => "making a TAP device",
    };
    obstacles.push(match refusal.errno {
        Errno::ENOSPC | Errno::EUSERS => Obstacle::command(
            facts,
            "there are as many namespaces as the system allows (user.max_user_namespaces and its like)",
            "sysctl -w user.max_user_namespaces=15000 user.max_net_namespaces=15000 \
             user.max_pid_namespaces=15000",
        ),
        Errno::EPERM | Errno::EACCES | Errno::ENOSYS if facts.filtered => Obstacle::new(
            format!("a seccomp filter, such as containers have, forbids {step}"),
            "to allow it start the container with --cap-add SYS_ADMIN --cap-add NET_ADMIN \
             --device /dev/net/tun",
        ),
        Errno::EINVAL | Errno::ENOSYS => Obstacle::new(
            "this kernel has no user, network or process namespaces",
            "it takes a kernel with CONFIG_USER_NS, CONFIG_NET_NS and CONFIG_PID_NS",
        ),
        errno => Obstacle::new(
            format!("the system forbids {step}: {}", errno.desc()),
            "it takes the capabilities SYS_ADMIN and NET_ADMIN, or a user namespace",
        ),
    });
}

pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn sysctl(name: &str) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    /// An ordinary user on a machine that allows everything.
    fn ordinary() -> Facts {
        Facts {
            tun_mode: Some(0o666),
            max_user_namespaces: Some(15_000),
            max_net_namespaces: Some(15_000),
            max_pid_namespaces: Some(15_000),
            ..Facts::default()
        }
    }

    fn refused(step: Step, errno: Errno) -> Option<Refusal> {
        Some(Refusal { step, errno })
    }

    /// The whole text for `facts` and a refusal.
    fn told(facts: &Facts, refusal: Option<Refusal>) -> String {
        let error = diagnose(facts, refusal);
        assert_eq!(error.exit(), Exit::NotPermitted);
        error.to_string()
    }

    #[test]
    fn a_closed_tun_device() {
        let facts = Facts {
            tun: Some(Errno::EACCES),
            tun_mode: Some(0o600),
            ..ordinary()
        };
        assert_eq!(
            told(&facts, None),
            "lab is not permitted here: /dev/net/tun may not be opened, its mode is 0600\n\
             to allow it: sudo chmod 0666 /dev/net/tun\n\
             or run it as root: sudo smoltalk lab"
        );
    }

    #[test]
    fn a_missing_tun_device() {
        let facts = Facts {
            root: true,
            tun: Some(Errno::ENOENT),
            tun_mode: None,
            ..ordinary()
        };
        assert_eq!(
            told(&facts, None),
            "lab is not permitted here: /dev/net/tun is missing\n\
             to allow it: modprobe tun (in a container: start it with --device /dev/net/tun)"
        );
    }

    #[test]
    fn a_missing_tun_driver() {
        let facts = Facts {
            tun: Some(Errno::ENODEV),
            ..ordinary()
        };
        assert_eq!(
            told(&facts, None),
            "lab is not permitted here: /dev/net/tun is there, but the kernel's tun driver is not\n\
             to allow it: sudo modprobe tun\n\
             or run it as root: sudo smoltalk lab"
        );
    }

    #[test]
    fn a_container_without_the_tun_device() {
        for errno in [Errno::EPERM, Errno::EACCES] {
            let facts = Facts {
                root: true,
                tun: Some(errno),
                ..ordinary()
            };
            assert_eq!(
                told(&facts, None),
                "lab is not permitted here: /dev/net/tun is withheld from this container\n\
                 to allow it start the container with --device /dev/net/tun --cap-add NET_ADMIN"
            );
        }
    }

    #[test]
    fn user_namespaces_switched_off() {
        let facts = Facts {
            unprivileged_userns_clone: Some(0),
            ..ordinary()
        };
        assert_eq!(
            told(&facts, refused(Step::Namespaces, Errno::EPERM)),
            "lab is not permitted here: user namespaces are off for ordinary users \
             (kernel.unprivileged_userns_clone is 0)\n\
             to allow it: sudo sysctl -w kernel.unprivileged_userns_clone=1\n\
             or run it as root: sudo smoltalk lab"
        );
    }

    #[test]
    fn no_user_namespace_allowed() {
        let facts = Facts {
            max_user_namespaces: Some(0),
            ..ordinary()
        };
        assert_eq!(
            told(&facts, refused(Step::Namespaces, Errno::ENOSPC)),
            "lab is not permitted here: user namespaces are off (user.max_user_namespaces is 0)\n\
             to allow it: sudo sysctl -w user.max_user_namespaces=15000\n\
             or run it as root: sudo smoltalk lab"
        );
    }

    #[test]
    fn as_many_namespaces_as_allowed() {
        let text = told(&ordinary(), refused(Step::Namespaces, Errno::ENOSPC));
        assert!(
            text.contains("as many namespaces as the system allows"),
            "{text}"
        );
        assert!(
            text.contains("sudo sysctl -w user.max_user_namespaces=15000"),
            "{text}"
        );
    }

    #[test]
    fn apparmor_s_restriction() {
        let facts = Facts {
            apparmor_restrict_unprivileged_userns: Some(1),
            ..ordinary()
        };
        for step in [Step::Namespaces, Step::IdentityMap, Step::Device] {
            assert_eq!(
                told(&facts, refused(step, Errno::EPERM)),
                "lab is not permitted here: AppArmor keeps user namespaces from ordinary users \
                 (kernel.apparmor_restrict_unprivileged_userns is 1)\n\
                 to allow it: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n\
                 or run it as root: sudo smoltalk lab"
            );
        }
    }

    #[test]
    fn a_seccomp_filter() {
        let facts = Facts {
            root: true,
            filtered: true,
            ..ordinary()
        };
        assert_eq!(
            told(&facts, refused(Step::Namespaces, Errno::EPERM)),
            "lab is not permitted here: a seccomp filter, such as containers have, forbids making namespaces\n\
             to allow it start the container with --cap-add SYS_ADMIN --cap-add NET_ADMIN \
             --device /dev/net/tun"
        );
    }

    #[test]
    fn a_kernel_without_namespaces() {
        let text = told(&ordinary(), refused(Step::Namespaces, Errno::EINVAL));
        assert!(text.contains("CONFIG_USER_NS"), "{text}");
    }

    #[test]
    fn a_refusal_of_unknown_cause_is_told_in_the_system_s_words() {
        let text = told(&ordinary(), refused(Step::Device, Errno::EPERM));
        assert!(
            text.contains("the system forbids making a TAP device: Operation not permitted"),
            "{text}"
        );
    }

    #[test]
    fn two_obstacles_are_told_together() {
        let facts = Facts {
            tun: Some(Errno::EACCES),
            tun_mode: Some(0o600),
            max_user_namespaces: Some(0),
            ..ordinary()
        };
        assert_eq!(
            told(&facts, refused(Step::Namespaces, Errno::ENOSPC)),
            "lab is not permitted here: /dev/net/tun may not be opened, its mode is 0600; and \
             user namespaces are off (user.max_user_namespaces is 0)\n\
             to allow it: sudo chmod 0666 /dev/net/tun\n\
             to allow it: sudo sysctl -w user.max_user_namespaces=15000\n\
             or run it as root: sudo smoltalk lab"
        );
    }

    #[test]
    fn both_capabilities_are_needed_to_do_without_a_user_namespace() {
        let with = |capabilities| Facts {
            capabilities,
            ..ordinary()
        };
        assert!(!with(0).may_make_networks());
        assert!(!with(1 << CAP_NET_ADMIN).may_make_networks());
        assert!(!with(1 << CAP_SYS_ADMIN).may_make_networks());
        assert!(with(1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN).may_make_networks());
    }
}
