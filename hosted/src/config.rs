//! The configuration file: what the command line and the environment leave out.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use smoltalk_hosted::error::{Error, Exit, reason};

use crate::cli::{
    At, AutoReply, Cidr, Common, Contact, Mac, Place, Seconds, ServeArgs, TapArgs, Target, When,
    Workers,
};

/// What the file says. Its keys are the long names of the options.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    #[serde(deserialize_with = "one")]
    timeout: Option<Seconds>,
    json: bool,
    verbose: bool,
    #[serde(deserialize_with = "one")]
    color: Option<When>,

    tap: Option<String>,
    #[serde(deserialize_with = "many")]
    ip: Vec<Cidr>,
    #[serde(deserialize_with = "many")]
    gateway: Vec<IpAddr>,
    #[serde(deserialize_with = "one")]
    mac: Option<Mac>,

    #[serde(deserialize_with = "many")]
    bind: Vec<IpAddr>,
    #[serde(deserialize_with = "one")]
    greeting_tcp: Option<Place>,
    #[serde(deserialize_with = "one")]
    greeting_udp: Option<Place>,
    #[serde(deserialize_with = "one")]
    time: Option<Place>,
    #[serde(deserialize_with = "one")]
    chat: Option<Place>,
    #[serde(deserialize_with = "one")]
    sntp: Option<Place>,
    #[serde(deserialize_with = "one")]
    discard: Option<Place>,
    #[serde(deserialize_with = "one")]
    chargen: Option<Place>,
    #[serde(deserialize_with = "one")]
    at: Option<At>,
    #[serde(deserialize_with = "one")]
    auto_reply: Option<AutoReply>,
    #[serde(deserialize_with = "one")]
    idle_timeout: Option<Seconds>,
    #[serde(deserialize_with = "one")]
    workers: Option<Workers>,
    busy_poll: bool,

    #[serde(deserialize_with = "one")]
    listen: Option<Place>,
    contacts: BTreeMap<String, Address>,
}

impl Config {
    /// Reads the file, if there is one.
    pub fn read() -> Result<Self, Error> {
        let Some(path) = path(env::var_os("XDG_CONFIG_HOME"), env::var_os("HOME")) else {
            return Ok(Self::default());
        };
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&path, &text),
            // It is not there, or in a folder of another's that we may not even look into, and so none of ours.
            Err(_) if fs::metadata(&path).is_err() => Ok(Self::default()),
            Err(error) => Err(Error::new(
                Exit::Usage,
                format!(
                    "cannot read the configuration file {}: {}",
                    path.display(),
                    reason(&error)
                ),
            )),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| 1 + before.matches('\n').count());
            // One line, as every error here is.
            let why = error.message().replace('\n', " ");
            Error::new(
                Exit::Usage,
                format!("configuration file {}, line {line}: {why}", path.display()),
            )
        })
    }

    /// Puts what the file says where `common` says nothing.
    pub fn complete_common(&self, common: &mut Common) {
        common.timeout = common.timeout.or(self.timeout);
        common.json |= self.json;
        common.verbose |= self.verbose;
        common.color = common.color.or(self.color);
    }

    /// Puts what the file says where `tap` says nothing.
    pub fn complete_tap(&self, tap: &mut TapArgs) {
        tap.tap = tap.tap.take().or_else(|| self.tap.clone());
        // Without a device they mean nothing, and only what was asked for just now deserves to be told so.
        if tap.tap.is_some() {
            or_many(&mut tap.ip, &self.ip);
            or_many(&mut tap.gateway, &self.gateway);
            tap.mac = tap.mac.or(self.mac);
        }
    }

    /// Puts what the file says where `services` says nothing.
    pub fn complete_services(&self, services: &mut ServeArgs) {
        or_many(&mut services.bind, &self.bind);
        services.greeting_tcp = services.greeting_tcp.or(self.greeting_tcp);
        services.greeting_udp = services.greeting_udp.or(self.greeting_udp);
        services.time = services.time.or(self.time);
        services.chat = services.chat.or(self.chat);
        services.sntp = services.sntp.or(self.sntp);
        services.discard = services.discard.or(self.discard);
        services.chargen = services.chargen.or(self.chargen);
        services.at = services.at.or(self.at);
        services.auto_reply = services
            .auto_reply
            .take()
            .or_else(|| self.auto_reply.clone());
        services.idle_timeout = services.idle_timeout.or(self.idle_timeout);
        services.workers = services.workers.or(self.workers);
        services.busy_poll |= self.busy_poll;
    }

    /// Where the chat's messages come in.
    pub fn listen(&self) -> Option<Place> {
        self.listen
    }

    /// The people to chat with: those in the file, but for names that `given` has too, and then `given`.
    pub fn contacts(&self, given: Vec<Contact>) -> Vec<Contact> {
        self.contacts
            .iter()
            .filter(|(name, _)| given.iter().all(|contact| contact.name != **name))
            .map(|(name, address)| Contact {
                name: name.clone(),
                target: address.0.clone(),
            })
            .chain(given.iter().cloned())
            .collect()
    }
}

/// Where the file is: the base directory is the XDG specification's, which wants a relative path to be ignored.
fn path(
    xdg_config_home: Option<impl Into<PathBuf>>,
    home: Option<impl Into<PathBuf>>,
) -> Option<PathBuf> {
    let base = xdg_config_home
        .map(Into::into)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(home?.into().join(".config")))?;
    Some(base.join("smoltalk").join("config.toml"))
}

fn or_many<T: Clone>(given: &mut Vec<T>, file: &[T]) {
    if given.is_empty() {
        given.extend_from_slice(file);
    }
}

/// A contact's address.
#[derive(Clone, Debug)]
struct Address(Target);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one(deserializer)?
            .map(Self)
            .ok_or_else(|| D::Error::custom("an address is missing"))
    }
}

/// A value as TOML has it, before its kind is known.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a number")]
enum Scalar {
    Integer(i64),
    Float(f64),
    Text(String),
    Moment(toml::value::Datetime),
}

impl Scalar {
    /// Reads it exactly as the command line would.
    fn read<T: FromStr<Err: ToString>, E: serde::de::Error>(self) -> Result<T, E> {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) => text,
            Self::Moment(moment) => moment.to_string(),
        }
        .parse()
        .map_err(|error: T::Err| E::custom(error.to_string()))
    }
}

fn one<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: ToString>,
{
    Scalar::deserialize(deserializer)?.read().map(Some)
}

/// One value, or an array of them.
fn many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: ToString>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text or an array of texts")]
    enum OneOrMany {
        Many(Vec<Scalar>),
        One(Scalar),
    }
    match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(scalar) => Ok(vec![scalar.read()?]),
        OneOrMany::Many(scalars) => scalars.into_iter().map(Scalar::read).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/c/config.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read_as_the_option_of_its_name() {
        let config = parse(
            r#"
            timeout = 2.5
            json = true
            verbose = true
            color = "never"
            tap = "tap7"
            ip = ["10.0.0.1/8", "fd00::1/64"]
            gateway = "10.0.0.2"
            mac = "02:00:00:00:00:01"
            bind = "0.0.0.0"
            greeting-tcp = 7000
            greeting-udp = "off"
            time = "127.0.0.2:9001"
            chat = "127.0.0.3"
            sntp = 123
            discard = 9009
            chargen = "off"
            at = 2024-02-29T12:00:00Z
            auto-reply = "away"
            idle-timeout = 3
            workers = 4
            busy-poll = true
            listen = 8082
            [contacts]
            egg = "example.org:8081"
            "哪吒" = "192.0.2.7"
            "#,
        )
        .unwrap();
        let mut common = Common::default();
        config.complete_common(&mut common);
        assert_eq!(common.timeout, "2.5".parse().ok());
        assert!(common.json && common.verbose);
        assert_eq!(common.color, Some(When::Never));
        let mut tap = TapArgs::default();
        config.complete_tap(&mut tap);
        assert_eq!(tap.tap.as_deref(), Some("tap7"));
        assert_eq!(tap.ip.len(), 2);
        assert_eq!(tap.gateway, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert!(tap.mac.is_some());
        let mut services = ServeArgs::default();
        config.complete_services(&mut services);
        assert_eq!(services.bind.len(), 1);
        assert_eq!(services.greeting_tcp, Some(Place::Port(7000)));
        assert_eq!(services.greeting_udp, Some(Place::Off));
        assert_eq!(services.time, "127.0.0.2:9001".parse().ok());
        assert_eq!(services.chat, "127.0.0.3".parse().ok());
        assert_eq!(services.sntp, Some(Place::Port(123)));
        assert_eq!(services.discard, Some(Place::Port(9009)));
        assert_eq!(services.chargen, Some(Place::Off));
        assert_eq!(services.at, Some(At(1_709_208_000)));
        assert_eq!(services.auto_reply, "away".parse().ok());
        assert_eq!(services.idle_timeout, "3".parse().ok());
        assert_eq!(services.workers, "4".parse().ok());
        assert!(services.busy_poll);
        assert_eq!(config.listen(), Some(Place::Port(8082)));
        let names: Vec<_> = config
            .contacts(Vec::new())
            .into_iter()
            .map(|c| c.name)
            .collect();
        assert_eq!(names, ["egg", "哪吒"]);
    }

    #[test]
    fn what_is_given_comes_before_the_file() {
        let config =
            parse("timeout = 1\nchat = 1\n[contacts]\negg = \"192.0.2.1\"\nyuan = \"192.0.2.2\"")
                .unwrap();
        let mut common = Common {
            timeout: "7".parse().ok(),
            ..Common::default()
        };
        config.complete_common(&mut common);
        assert_eq!(common.timeout, "7".parse().ok());
        let mut services = ServeArgs {
            chat: Some(Place::Off),
            ..ServeArgs::default()
        };
        config.complete_services(&mut services);
        assert_eq!(services.chat, Some(Place::Off));
        let contacts = config.contacts(vec!["egg=192.0.2.9".parse().unwrap()]);
        let shown: Vec<_> = contacts
            .iter()
            .map(|c| format!("{}={}", c.name, c.target))
            .collect();
        assert_eq!(shown, ["yuan=192.0.2.2", "egg=192.0.2.9"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_line() {
        for (text, line, why) in [
            ("json = true\n\ntiemout = 3\n", 3, "unknown field `tiemout`"),
            (
                "json = true\ntimeout = \"soon\"\n",
                2,
                "`soon` is not a number of seconds",
            ),
            (
                "\n[contacts]\n\negg = \"[::1\"\n",
                4,
                "not a HOST or HOST:PORT",
            ),
            ("ip = [\"10.0.0.1\"]", 1, "prefix length"),
            ("json = \n", 1, ""),
            ("time = true", 1, "expected a text or a number"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(&format!("configuration file /c/config.toml, line {line}: "))
                    && error.contains(why),
                "{text:?}: {error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn the_file_is_where_the_xdg_specification_puts_it() {
        let none = None::<&str>;
        let expect = |path: &str| Some(PathBuf::from(path));
        assert_eq!(
            path(Some("/x"), Some("/home/egg")),
            expect("/x/smoltalk/config.toml")
        );
        for xdg in [none, Some(""), Some("relative")] {
            assert_eq!(
                path(xdg, Some("/home/egg")),
                expect("/home/egg/.config/smoltalk/config.toml")
            );
        }
        assert_eq!(path(none, none), None);
    }
}
