//! What the tests of the `smoltalk` program share: running it, and running a test inside its lab.
#![allow(
    dead_code,
    reason = "every test program includes this module, and each uses a part of it"
)]

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The program under test.
pub const SMOLTALK: &str = env!("CARGO_BIN_EXE_smoltalk");

/// Set to the name of the test that runs inside a lab.
const IN_LAB: &str = "SMOLTALK_TEST_IN_LAB";

/// Runs `body` inside `smoltalk lab LAB_ARGS`, where the services are at 192.168.69.1 and fdaa::1. For that the
/// test, which must be named `test` (with its modules), runs again in a process of its own. Where a lab is not
/// permitted the test is reported as not run.
pub fn in_lab(test: &str, lab_args: &[&str], body: impl FnOnce()) {
    if std::env::var_os(IN_LAB).is_some_and(|inside| inside == test) {
        return body();
    }
    if !lab_permitted(test) {
        return;
    }
    let this = std::env::current_exe().expect("the test's own program");
    let output = smoltalk()
        .arg("lab")
        .args(lab_args)
        .arg("--")
        .arg(this)
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(IN_LAB, test)
        .output()
        .expect("smoltalk runs");
    // A name that no test has would run none, and succeed.
    let ran = String::from_utf8_lossy(&output.stdout).contains("test result: ok. 1 passed");
    assert!(
        output.status.success() && ran,
        "{test} in the lab: {}",
        told(&output)
    );
}

/// Whether a lab can be made here. If not, `test` is reported by name as not run, and fails where `CI` is `true`.
pub fn lab_permitted(test: &str) -> bool {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    let refusal = REFUSAL.get_or_init(|| {
        let output = run(["lab", "--no-serve", "--", "true"]);
        match output.status.code() {
            Some(0) => None,
            Some(4) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            _ => panic!("smoltalk lab: {}", told(&output)),
        }
    });
    match refusal {
        None => true,
        Some(why) => {
            not_run(test, why);
            false
        }
    }
}

/// Reports `test` as not run, past the test runner, which keeps what a passing test prints; fails where `CI` is
/// `true`, because there everything must run.
pub fn not_run(test: &str, why: &str) {
    let line = format!("NOT RUN: {test}: {}\n", why.replace('\n', "; "));
    let _ = io::stderr().write_all(line.as_bytes());
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{line}"
    );
}

/// The program under test, without what a person has set for it, and without standard input.
pub fn smoltalk() -> Command {
    let mut command = Command::new(SMOLTALK);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SMOLTALK_") {
            command.env_remove(name);
        }
    }
    command
        .env("XDG_CONFIG_HOME", "/dev/null")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

/// Runs `smoltalk ARGS` to its end.
pub fn run(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    smoltalk().args(args).output().expect("smoltalk runs")
}

/// Runs `command` to its end, with `input` as its standard input.
pub fn run_with_input(command: &mut Command, input: impl Into<Vec<u8>>) -> Ended {
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = running.child.stdin.take().expect("piped");
    let input = input.into();
    // In a thread of its own, since it need not be read before something is written, or at all.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let ended = running.wait();
    writer.join().expect("writing does not panic");
    ended
}

/// All that a program left: for a failing assertion.
pub fn told(output: &Output) -> String {
    format!(
        "{}\nstandard output:\n{}\nstandard error:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A program that runs beside the test, as a rule `smoltalk`. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    listening: Vec<(String, String, SocketAddr)>,
}

impl Running {
    /// Starts `smoltalk ARGS`.
    pub fn smoltalk(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::start(smoltalk().args(args))
    }

    /// Starts `command`, reading its standard output and standard error.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = child.stderr.take().expect("piped");
        let stderr = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            bytes
        });
        Self {
            child,
            stdout,
            stderr: Some(stderr),
            listening: Vec::new(),
        }
    }

    /// `smoltalk serve ARGS`, once it is ready.
    pub fn server(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let args: Vec<_> = args.into_iter().collect();
        let serve = [OsStr::new("serve")].into_iter();
        let mut server = Self::smoltalk(serve.chain(args.iter().map(AsRef::as_ref)));
        server.until_ready();
        server
    }

    /// Reads the lines that say where the services listen, up to the one that says `ready`.
    pub fn until_ready(&mut self) {
        loop {
            let line = self.line().unwrap_or_else(|| {
                panic!("it ended before it was ready: {}", self.end_of_stderr())
            });
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["ready"] => return,
                ["listening", service, transport, address] => self.listening.push((
                    service.to_owned(),
                    transport.to_owned(),
                    address.parse().expect("an address"),
                )),
                _ => panic!("not a line that comes before `ready`: {line}"),
            }
        }
    }

    /// Where `service` listens over `transport` (`tcp` or `udp`), on IPv4 or on IPv6.
    #[track_caller]
    pub fn address(&self, service: &str, transport: &str, on_ipv4: bool) -> SocketAddr {
        self.listening
            .iter()
            .find(|(name, over, address)| {
                name == service && over == transport && address.is_ipv4() == on_ipv4
            })
            .map(|(_, _, address)| *address)
            .unwrap_or_else(|| panic!("no {service} over {transport}: {:?}", self.listening))
    }

    /// The next line of standard output, without its end; `None` after the last.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let len = self.stdout.read_line(&mut line).expect("standard output");
        (len > 0).then(|| line.trim_end_matches('\n').to_owned())
    }

    /// The next line of standard output that has `text` in it, without its end.
    #[track_caller]
    pub fn line_with(&mut self, text: &str) -> String {
        let mut others = Vec::new();
        loop {
            let Some(line) = self.line() else {
                panic!("no line with {text:?} came, but {others:#?}");
            };
            if line.contains(text) {
                return line;
            }
            others.push(line);
        }
    }

    /// Writes to standard input, which must be piped and open.
    pub fn write(&mut self, input: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("piped and open");
        stdin.write_all(input).expect("it reads");
    }

    /// Ends standard input.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` to this process only.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the process is ours");
    }

    /// Ends its standard input, and waits for the end of the process and for that of everyone who has its standard
    /// output.
    pub fn wait(mut self) -> Ended {
        self.close_stdin();
        let mut stdout = String::new();
        self.stdout
            .read_to_string(&mut stdout)
            .expect("standard output");
        let status = self.child.wait().expect("the child is ours");
        let stderr = self.end_of_stderr();
        Ended {
            status,
            stdout,
            stderr,
        }
    }

    fn end_of_stderr(&mut self) -> String {
        let bytes = self
            .stderr
            .take()
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a [`Running`] left.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// What was not read before.
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Checks the exit code, and how standard error begins.
    #[track_caller]
    pub fn expect(&self, code: i32, said: &str) -> &Self {
        assert!(
            self.status.code() == Some(code) && self.stderr.starts_with(said),
            "expected exit code {code} and {said:?}: {self:#?}"
        );
        self
    }
}
