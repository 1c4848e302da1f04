//! The command line as clap sees it, and the kinds of value that its options take.
//!
//! Every option is optional here, because what the command line and the environment leave out may stand in the
//! configuration file (see [`crate::config`]); the defaults are where the commands put the three together.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use smoltalk::Duration;

/// Three small services, on this machine's sockets or on a TCP/IP stack of their own.
///
/// smoltalk greets (TCP and UDP), tells the time (UDP) and chats (UDP). Every command runs on the sockets of the
/// operating system, or with `--tap NAME` on smoltcp, a TCP/IP stack within this program, over a TAP device.
#[derive(Debug, Parser)]
#[command(
    name = "smoltalk",
    version,
    args_override_self = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "New here? Begin with `smoltalk demo`.",
    after_long_help = AFTER_HELP
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// Each paragraph is one line, which clap breaks where the terminal ends.
const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 failed (no answer, refused, lost); 2 wrong usage; 3 address in use; 4 not permitted.

An option that is not given is taken from the environment (SMOLTALK_TIMEOUT for --timeout), then from \
$XDG_CONFIG_HOME/smoltalk/config.toml (or ~/.config/smoltalk/config.toml), whose keys are the long names of the \
options, and whose table [contacts] names the people to chat with:

    timeout = 2.5
    chat = \"0.0.0.0:8081\"

    [contacts]
    egg = \"192.0.2.7:8081\"

Answers go to standard output, everything else to standard error. What a peer sends is never written raw: control \
characters and invalid UTF-8 are shown as escapes. With --json it is exact.";

/// Options that every command has.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Common {
    /// How long to wait for others, in seconds [default: 5, or 2 for chat, serve, lab and demo]
    ///
    /// Fractions are allowed. For greet and time: until an answer has come [default: 5]. For chat: how long to
    /// stay for answers after the end of input [default: 2]. For serve and lab: how long to finish what is in
    /// flight when told to end [default: 2]. For demo: how long each exchange may take [default: 2].
    #[arg(
        long,
        value_name = "SECONDS",
        global = true,
        env = "SMOLTALK_TIMEOUT",
        hide_env_values = true
    )]
    pub timeout: Option<Seconds>,

    /// Write standard output as JSON, one object a line
    #[arg(
        long,
        global = true,
        env = "SMOLTALK_JSON",
        hide_env_values = true,
        action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new()
    )]
    pub json: bool,

    /// Say on standard error what happens: each request, each attempt, how long it took
    #[arg(
        short,
        long,
        global = true,
        env = "SMOLTALK_VERBOSE",
        hide_env_values = true,
        action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new()
    )]
    pub verbose: bool,

    /// When to use colour [default: auto, which is on a terminal, unless NO_COLOR is set]
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        env = "SMOLTALK_COLOR",
        hide_env_values = true
    )]
    pub color: Option<When>,
}

/// On which stack a command runs.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which TCP/IP stack")]
pub struct TapArgs {
    /// Run on smoltcp over the TAP device NAME, which must exist [default: off, the sockets of this machine]
    #[arg(
        long,
        value_name = "NAME",
        env = "SMOLTALK_TAP",
        hide_env_values = true
    )]
    pub tap: Option<String>,

    /// An address of the stack on the TAP device, with its prefix length; may be repeated [default:
    /// 192.168.69.1/24 and fdaa::1/64]
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        env = "SMOLTALK_IP",
        hide_env_values = true
    )]
    pub ip: Vec<Cidr>,

    /// The router on the TAP device, one for each IP version at most [default: none]
    #[arg(
        long,
        value_name = "IP",
        value_delimiter = ',',
        env = "SMOLTALK_GATEWAY",
        hide_env_values = true
    )]
    pub gateway: Vec<IpAddr>,

    /// The Ethernet address of the stack on the TAP device, as 02:00:00:00:00:01 [default: made from the device's
    /// name]
    #[arg(long, value_name = "MAC", env = "SMOLTALK_MAC", hide_env_values = true)]
    pub mac: Option<Mac>,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the services until SIGINT or SIGTERM
    ///
    /// Writes `listening SERVICE TRANSPORT ADDRESS` for each service when it is bound, then `ready`; then each chat
    /// message that comes, and at the end the counters of each service. If one address cannot be had, nothing is
    /// served.
    Serve {
        #[command(flatten)]
        services: ServeArgs,
        #[command(flatten)]
        tap: TapArgs,
    },
    /// Greet a server, and show its answer
    Greet {
        /// Over UDP instead of TCP
        #[arg(long)]
        udp: bool,
        /// The server: HOST or HOST:PORT [default port: 8898]
        addr: Target,
        /// What to say: at most 1024 bytes [default: hello]
        message: Option<OsString>,
        #[command(flatten)]
        tap: TapArgs,
    },
    /// Ask a server for the time, and show its answer
    Time {
        /// The server: HOST or HOST:PORT [default port: 9000]
        addr: Target,
        /// How to write the time, as for strftime: at most 256 bytes [default: what the server likes, as a rule
        /// `%Y-%m-%d %X`]
        format: Option<OsString>,
        #[command(flatten)]
        tap: TapArgs,
    },
    /// Chat: each line of standard input is a message, and what others write appears at any time
    ///
    /// Without NAME the first line picks the contact, by name or by ADDR. The line `q` leaves the contact, so that
    /// the next line picks another one; with no contact, `q` ends the chat, as the end of input does. A message has
    /// at most 1024 bytes. After the end of input the chat stays for --timeout seconds [default: 2] while somebody
    /// who was written to has not answered. Exit code 1 if a message could not be sent or delivered.
    Chat {
        /// Where messages come in: ADDR:PORT, ADDR or PORT; port 0 takes any that is free [default:
        /// 127.0.0.1:8081; on a TAP device 8081 at each of its addresses]
        #[arg(
            long,
            value_name = "ADDR",
            env = "SMOLTALK_LISTEN",
            hide_env_values = true
        )]
        listen: Option<Place>,
        /// Somebody to chat with; may be repeated, and adds to the table `contacts` of the configuration file
        #[arg(
            long,
            value_name = "NAME=ADDR",
            value_delimiter = ',',
            env = "SMOLTALK_CONTACT",
            hide_env_values = true
        )]
        contact: Vec<Contact>,
        /// The contact to begin with
        name: Option<String>,
        #[command(flatten)]
        tap: TapArgs,
    },
    /// A private network with the services on smoltcp at 192.168.69.1, and your shell on the kernel's side
    ///
    /// Makes a network namespace with a TAP device in it, serves on smoltcp over it at 192.168.69.1 and fdaa::1, and
    /// runs your shell, or COMMAND, where 192.168.69.100 and fdaa::100 are the kernel's addresses. Ends with the exit
    /// code of the command, and leaves nothing behind. Needs no privileges where the system lets users make
    /// namespaces; as root it works everywhere.
    Lab {
        #[command(flatten)]
        services: ServeArgs,
        /// Leave the TAP device to COMMAND, which can then run `smoltalk ... --tap tap0` itself
        #[arg(long)]
        no_serve: bool,
        /// The program to run instead of your shell, after `--`
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// The whole tour on this machine: every service on every stack, no privileges needed
    ///
    /// Runs each exchange over host sockets, over two smoltcp stacks joined by an Ethernet link in memory, and over
    /// a real TAP device where `smoltalk lab` works. Exit code 0 if every exchange that could run was right.
    Demo {
        /// Run the exchanges against the services at IP only, for the demo within its own lab.
        #[arg(long, value_name = "IP", hide = true)]
        inside: Vec<IpAddr>,
    },
}

/// Which services to run, and where.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Services")]
pub struct ServeArgs {
    /// The address to serve on; may be repeated [default: 127.0.0.1; on a TAP device every address it has]
    #[arg(
        long,
        value_name = "IP",
        value_delimiter = ',',
        env = "SMOLTALK_BIND",
        hide_env_values = true
    )]
    pub bind: Vec<IpAddr>,

    /// The greeting over TCP: ADDR:PORT, ADDR, PORT or `off` [default: 8898 at each --bind]
    #[arg(
        long,
        value_name = "ADDR|PORT|off",
        env = "SMOLTALK_GREETING_TCP",
        hide_env_values = true
    )]
    pub greeting_tcp: Option<Place>,

    /// The greeting over UDP: ADDR:PORT, ADDR, PORT or `off` [default: 8898 at each --bind]
    #[arg(
        long,
        value_name = "ADDR|PORT|off",
        env = "SMOLTALK_GREETING_UDP",
        hide_env_values = true
    )]
    pub greeting_udp: Option<Place>,

    /// The time over UDP: ADDR:PORT, ADDR, PORT or `off` [default: 9000 at each --bind]
    #[arg(
        long,
        value_name = "ADDR|PORT|off",
        env = "SMOLTALK_TIME",
        hide_env_values = true
    )]
    pub time: Option<Place>,

    /// The chat over UDP: ADDR:PORT, ADDR, PORT or `off` [default: 8081 at each --bind]
    #[arg(
        long,
        value_name = "ADDR|PORT|off",
        env = "SMOLTALK_CHAT",
        hide_env_values = true
    )]
    pub chat: Option<Place>,

    /// The time for clocks (SNTP) over UDP: ADDR:PORT, ADDR, PORT or `off` [default: off; the port is 123 if only ADDR
    /// is given]
    #[arg(
        long,
        value_name = "ADDR|PORT|off",
        env = "SMOLTALK_SNTP",
        hide_env_values = true
    )]
    pub sntp: Option<Place>,

    /// A place to send any bytes to (RFC 863) over TCP: ADDR:PORT, ADDR, PORT or `off` [default: off; the port is 9 if only ADDR is given]
    #[arg(
        long,
        value_name = "ADDR|PORT|off",
        env = "SMOLTALK_DISCARD",
        hide_env_values = true
    )]
    pub discard: Option<Place>,

    /// Characters without end (RFC 864) over TCP: ADDR:PORT, ADDR, PORT or `off` [default: off; the port is 19 if only ADDR is given]
    #[arg(
        long,
        value_name = "ADDR|PORT|off",
        env = "SMOLTALK_CHARGEN",
        hide_env_values = true
    )]
    pub chargen: Option<Place>,

    /// Tell this time instead of the system's: RFC 3339 (2024-02-29T12:00:00Z) or seconds since 1970
    ///
    /// The clock stands still there. The time zone is the system's (or TZ's) as always.
    #[arg(
        long,
        value_name = "WHEN",
        allow_hyphen_values = true,
        env = "SMOLTALK_AT",
        hide_env_values = true
    )]
    pub at: Option<At>,

    /// Answer chat messages with TEXT, once in a while for each peer; empty for never [default: never; in a lab a
    /// short text]
    #[arg(
        long,
        value_name = "TEXT",
        env = "SMOLTALK_AUTO_REPLY",
        hide_env_values = true
    )]
    pub auto_reply: Option<AutoReply>,

    /// How long a TCP connection may stay silent, in seconds [default: 10]
    #[arg(
        long,
        value_name = "SECONDS",
        env = "SMOLTALK_IDLE_TIMEOUT",
        hide_env_values = true
    )]
    pub idle_timeout: Option<Seconds>,

    /// Serve with N threads, each with sockets of its own at the same addresses; the chat is on the first [default: 1]
    ///
    /// With --tap, each has a queue of a device that was made with `multi_queue`, and there is no chat (--chat off).
    #[arg(
        long,
        value_name = "N",
        env = "SMOLTALK_WORKERS",
        hide_env_values = true
    )]
    pub workers: Option<Workers>,

    /// Spin instead of sleeping: answers come sooner, and each worker takes all of a CPU even when nobody asks
    #[arg(
        long,
        env = "SMOLTALK_BUSY_POLL",
        hide_env_values = true,
        action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new()
    )]
    pub busy_poll: bool,
}

impl Cli {
    /// Reads the command line and the environment. Wrong usage, `--help` and `--version` come out as clap's error.
    pub fn read() -> Result<Self, clap::Error> {
        let command = without_empty_environment(Self::command());
        Self::from_arg_matches(&command.try_get_matches()?)
    }
}

/// An environment variable that is set to nothing counts as not set.
fn without_empty_environment(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let empty = arg
                .get_env()
                .and_then(std::env::var_os)
                .is_some_and(|value| value.is_empty());
            if empty { arg.env(None::<&str>) } else { arg }
        })
        .mut_subcommands(without_empty_environment)
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as ValueEnum>::from_str(text, false)
            .map_err(|_| format!("`{text}` is neither auto, always nor never"))
    }
}

/// A time span in seconds, fractions allowed, from 0 to a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|seconds| (0.0..=86_400.0).contains(seconds))
            .map(|seconds| Self(Duration::from_secs_f64(seconds)))
            .ok_or_else(|| format!("`{text}` is not a number of seconds from 0 to 86400"))
    }
}

/// How many threads serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers(pub NonZeroUsize);

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|count: &NonZeroUsize| count.get() <= 256)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a number of threads from 1 to 256"))
    }
}

/// Where a service is: the default place, another port of it, another address, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Off,
    Port(u16),
    Ip(IpAddr),
    Addr(SocketAddr),
}

impl Place {
    /// The addresses meant by a place that may not be given, where by default there is `port` at each of `bind`.
    pub fn addresses(place: Option<Self>, bind: &[IpAddr], port: u16) -> Vec<SocketAddr> {
        let everywhere = |port| {
            bind.iter()
                .map(|ip| SocketAddr::new(*ip, port))
                .collect::<Vec<_>>()
        };
        match place {
            None => everywhere(port),
            Some(Self::Off) => Vec::new(),
            Some(Self::Port(port)) => everywhere(port),
            Some(Self::Ip(ip)) => vec![SocketAddr::new(ip, port)],
            Some(Self::Addr(addr)) => vec![addr],
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        text.parse()
            .map(Self::Port)
            .or_else(|_| text.parse().map(Self::Addr))
            .or_else(|_| bare.unwrap_or(text).parse().map(Self::Ip))
            .map_err(|_| {
                format!("`{text}` is neither an address (127.0.0.1:9000, [::1]:9000), a port (9000) nor `off`")
            })
    }
}

/// A peer as a person writes it: a host's name or IP address, and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: Host,
    pub port: Option<u16>,
}

/// The part of a [`Target`] before the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Ip(IpAddr),
    Name(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not a HOST or HOST:PORT (example.org, 127.0.0.1:9000, [::1]:9000)")
        };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
            }
        } else {
            match text.split_once(':') {
                // More than one colon: an IPv6 address without brackets, which cannot have a port.
                Some((_, rest)) if rest.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = port.map(|port| {
            port.parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("`{port}` is not a port from 1 to 65535"))
        });
        let host = match host.parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) if host.is_empty() || host.contains(char::is_whitespace) => return Err(wrong()),
            Err(_) => Host::Name(host.to_owned()),
        };
        Ok(Self {
            host,
            port: port.transpose()?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Ip(ip), Some(port)) => SocketAddr::new(*ip, port).fmt(f),
            (Host::Ip(ip), None) => ip.fmt(f),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Name(name), None) => f.write_str(name),
        }
    }
}

/// Somebody to chat with, as `NAME=ADDR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    pub name: String,
    pub target: Target,
}

impl FromStr for Contact {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, target) = text
            .split_once('=')
            .filter(|(name, _)| !name.trim().is_empty())
            .ok_or_else(|| format!("`{text}` is not NAME=ADDR"))?;
        Ok(Self {
            name: name.trim().to_owned(),
            target: target.trim().parse()?,
        })
    }
}

/// An address and the length of its network's prefix, as `192.168.69.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub ip: IpAddr,
    pub prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(ip, prefix)| {
            let ip: IpAddr = ip.parse().ok()?;
            let most = if ip.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most)?;
            Some(Self { ip, prefix })
        });
        parsed.ok_or_else(|| {
            format!("`{text}` is not an address with a prefix length (192.168.69.1/24, fdaa::1/64)")
        })
    }
}

/// An Ethernet address of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            *byte = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| {
                    format!("`{text}` is not an Ethernet address (02:00:00:00:00:01)")
                })?;
        }
        if parts.next().is_some() {
            return Err(format!("`{text}` has more than six bytes"));
        }
        // The lowest bit of the first byte marks a group address, which no station may have (IEEE 802).
        if mac[0] & 1 == 1 || mac == [0; 6] {
            return Err(format!("`{text}` is not the address of one station"));
        }
        Ok(Self(mac))
    }
}

/// A moment, in seconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub i64);

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .or_else(|_| chrono::DateTime::parse_from_rfc3339(text).map(|at| at.timestamp()))
            .map(Self)
            .map_err(|_| {
                format!("`{text}` is neither RFC 3339 (2024-02-29T12:00:00Z) nor a number of seconds since 1970")
            })
    }
}

/// What an unattended chat answers; empty for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoReply(pub heapless::String<64>);

impl FromStr for AutoReply {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        heapless::String::try_from(text)
            .map(Self)
            .map_err(|_| format!("`{text}` has more than 64 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_nothing_wrong_with_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_target_is_read_as_people_write_it() {
        let v6 = Host::Ip("::1".parse().unwrap());
        for (text, host, port) in [
            ("127.0.0.1", Host::Ip("127.0.0.1".parse().unwrap()), None),
            ("[::1]:9000", v6.clone(), Some(9000)),
            ("[::1]", v6.clone(), None),
            ("::1", v6, None),
            ("example.org", Host::Name("example.org".into()), None),
            ("example.org:7", Host::Name("example.org".into()), Some(7)),
            ("[fe80::1%lo]:7", Host::Name("fe80::1%lo".into()), Some(7)),
        ] {
            assert_eq!(text.parse(), Ok(Target { host, port }), "{text}");
        }
        for text in [
            "",
            ":80",
            "[::1",
            "[::1]80",
            "a b",
            "host:",
            "host:0",
            "host:65536",
            "host:x",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_target_is_shown_as_it_was_written() {
        for text in [
            "127.0.0.1:9000",
            "[::1]:9000",
            "::1",
            "example.org:7",
            "example.org",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_place_means_addresses() {
        let bind = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        for (text, addresses) in [
            (None, vec!["127.0.0.1:9000", "[::1]:9000"]),
            (Some("off"), vec![]),
            (Some("0"), vec!["127.0.0.1:0", "[::1]:0"]),
            (Some("192.0.2.1"), vec!["192.0.2.1:9000"]),
            (Some("[::2]"), vec!["[::2]:9000"]),
            (Some("[::2]:7"), vec!["[::2]:7"]),
        ] {
            let place = text.map(|text| text.parse().unwrap());
            let found: Vec<_> = Place::addresses(place, &bind, 9000)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, addresses, "{text:?}");
        }
        assert!("somewhere".parse::<Place>().is_err());
        assert!("65536".parse::<Place>().is_err());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for text in ["-1", "86401", "NaN", "inf", "1e9", "", "5s"] {
            assert!(text.parse::<Seconds>().is_err(), "{text}");
        }
        assert_eq!("0.25".parse(), Ok(Seconds(Duration::from_millis(250))));
        for text in [
            "192.168.69.1",
            "192.168.69.1/33",
            "fdaa::1/129",
            "x/24",
            "1.2.3.4/-1",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        for text in [
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "03:00:00:00:00:01",
            "+2:00:00:00:00:01",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        assert_eq!("02:00:00:00:00:0f".parse(), Ok(Mac([2, 0, 0, 0, 0, 15])));
        assert!("x".repeat(65).parse::<AutoReply>().is_err());
    }

    #[test]
    fn a_moment_is_a_date_or_a_number() {
        assert_eq!("2024-02-29T12:00:00Z".parse(), Ok(At(1_709_208_000)));
        assert_eq!("2024-02-29T13:00:00+01:00".parse(), Ok(At(1_709_208_000)));
        assert_eq!("-1".parse(), Ok(At(-1)));
        assert!("2023-02-29T12:00:00Z".parse::<At>().is_err());
    }
}
