//! `smoltalk lab`, from outside: what becomes of the command, what is left behind, and who reaches whom.
#![allow(
    clippy::disallowed_methods,
    reason = "it watches how long real processes stay"
)]

mod support;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::geteuid;

use support::{Ended, Running, SMOLTALK, in_lab, lab_permitted, not_run, run, smoltalk, told};

/// A lab with the services, and one without.
const LABS: [&[&str]; 2] = [&["lab"], &["lab", "--no-serve"]];

/// Less than what sleeps in a lab sleeps for: a lab that ends sooner did not wait for it.
const SLEPT: Duration = Duration::from_secs(60);

fn lab(args: &[&str], command: &[&str]) -> Output {
    run(args.iter().chain(&["--"]).chain(command))
}

/// Starts a lab in a process group of its own, as a shell does, and with `mark` in the environment of all that runs
/// in it.
fn start(args: &[&str], mark: &str, command: &[&str]) -> Running {
    Running::start(
        smoltalk()
            .args(args)
            .arg("--")
            .args(command)
            .env("SMOLTALK_TEST_MARK", mark)
            .process_group(0),
    )
}

/// The processes with `mark` in their environment.
fn marked(mark: &str) -> Vec<String> {
    let variable = format!("SMOLTALK_TEST_MARK={mark}");
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == variable.as_bytes())
        {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

#[test]
fn the_exit_code_is_the_commands() {
    if !lab_permitted("the_exit_code_is_the_commands") {
        return;
    }
    for (command, code, said) in [
        ([].as_slice(), 0, ""),
        (&["true"], 0, ""),
        (&["sh", "-c", "exit 7"], 7, ""),
        (&["sh", "-c", "exit 255"], 255, ""),
        (&["sh", "-c", "kill -KILL $$"], 137, ""),
        (&["sh", "-c", "kill -SEGV $$"], 139, ""),
        (&["no-such-command"], 127, "no-such-command: not found"),
        (&["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
    ] {
        for args in LABS {
            let output = lab(args, command);
            assert_eq!(output.status.code(), Some(code), "{}", told(&output));
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.contains(said), "{}", told(&output));
        }
    }
}

#[test]
fn the_standard_streams_are_the_commands() {
    if !lab_permitted("the_standard_streams_are_the_commands") {
        return;
    }
    for args in LABS {
        let mut child = smoltalk()
            .args(args)
            .args(["--", "sh", "-c", "cat; echo problem >&2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("smoltalk runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"one\ntwo\n").expect("standard input");
        drop(stdin);
        let output = child.wait_with_output().expect("smoltalk ends");
        assert_eq!(output.stdout, b"one\ntwo\n", "{}", told(&output));
        assert!(
            String::from_utf8_lossy(&output.stderr).ends_with("problem\n"),
            "{}",
            told(&output)
        );
    }
}

#[test]
fn the_kernel_s_side_is_configured_when_the_command_starts() {
    if !lab_permitted("the_kernel_s_side_is_configured_when_the_command_starts") {
        return;
    }
    for args in LABS {
        let output = lab(args, &["cat", "/proc/net/dev", "/proc/net/if_inet6"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("\n  tap0:"), "{}", told(&output));
        // In hexadecimal: the interface's index, the prefix, the scope, and flags without "tentative" (0x40).
        assert!(
            text.contains("fdaa0000000000000000000000000100 02 40 00 82     tap0"),
            "{}",
            told(&output)
        );
        let output = lab(args, &["cat", "/proc/net/fib_trie"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("192.168.69.100"), "{}", told(&output));
    }
}

#[test]
fn nothing_is_left_when_the_command_ends() {
    if !lab_permitted("nothing_is_left_when_the_command_ends") {
        return;
    }
    for args in LABS {
        let since = Instant::now();
        let mark = format!("ends {args:?}");
        let command = ["sh", "-c", "sleep 60 & setsid sleep 60 & exit 3"];
        let ended = start(args, &mark, &command).wait();
        assert!(since.elapsed() < SLEPT, "the last to go was a sleeper");
        assert_eq!(ended.status.code(), Some(3), "{ended:?}");
        assert_eq!(marked(&mark), [""; 0]);
    }
}

#[test]
fn nothing_is_left_when_the_lab_is_killed() {
    if !lab_permitted("nothing_is_left_when_the_lab_is_killed") {
        return;
    }
    for args in LABS {
        let since = Instant::now();
        let mark = format!("killed {args:?}");
        let command = [
            "sh",
            "-c",
            "trap '' TERM HUP; sleep 60 & setsid sleep 60 & echo up; wait",
        ];
        let mut lab = start(args, &mark, &command);
        assert_eq!(lab.line().as_deref(), Some("up"));
        assert!(marked(&mark).len() >= 5, "{:?}", marked(&mark));
        let network = format!("/proc/{}/ns/net", lab.id());
        let network = fs::File::open(network).expect("the lab's network namespace");
        lab.signal(Signal::SIGKILL);
        // Ends with the last of those that have the lab's standard output.
        lab.wait();
        assert!(since.elapsed() < SLEPT, "the last to go was a sleeper");
        assert_eq!(marked(&mark), [""; 0]);
        if args == LABS[0] {
            // The device is gone even while somebody still has its network. (One that nobody has served must stay
            // until its network goes, for others to attach to.)
            let devices = thread::spawn(move || {
                setns(network, CloneFlags::CLONE_NEWNET).expect("into the lab's network");
                fs::read_to_string("/proc/thread-self/net/dev").expect("its devices")
            });
            let devices = devices.join().expect("the thread ends");
            assert!(devices.contains("lo:"), "{devices}");
            assert!(!devices.contains("tap0"), "{devices}");
        }
    }
}

#[test]
fn a_lab_told_to_end_ends_its_command() {
    if !lab_permitted("a_lab_told_to_end_ends_its_command") {
        return;
    }
    let polite = "trap 'echo bye; exit 0' TERM HUP; sleep 60 & echo up; wait";
    let deaf = "trap '' TERM HUP; echo up; sleep 60; sleep 60";
    for args in LABS {
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
            for (command, said) in [(polite, "bye\n"), (deaf, "")] {
                let since = Instant::now();
                let mark = format!("told {args:?} {code} {said}");
                let mut lab = start(args, &mark, &["sh", "-c", command]);
                assert_eq!(lab.line().as_deref(), Some("up"));
                lab.signal(signal);
                let ended = lab.wait();
                assert_eq!(ended.status.code(), Some(code), "{ended:?}");
                assert_eq!(ended.stdout, said);
                assert!(since.elapsed() < SLEPT, "the last to go was a sleeper");
                assert_eq!(marked(&mark), [""; 0]);
            }
        }
    }
}

#[test]
fn an_interrupt_is_for_the_command() {
    if !lab_permitted("an_interrupt_is_for_the_command") {
        return;
    }
    for args in LABS {
        let mut lab = Running::start(
            smoltalk()
                .args(args)
                .args(["--", "python3", "-c"])
                .arg(
                    "import sys, time\n\
                     try:\n    print('up', flush=True)\n    time.sleep(60)\n\
                     except KeyboardInterrupt:\n    sys.exit(9)",
                )
                .process_group(0),
        );
        assert_eq!(lab.line().as_deref(), Some("up"));
        lab.signal(Signal::SIGINT);
        let ended = lab.wait();
        assert_eq!(ended.status.code(), Some(9), "{ended:?}");
    }
}

#[test]
fn a_terminal_works_in_a_lab_as_outside() {
    if !lab_permitted("a_terminal_works_in_a_lab_as_outside") {
        return;
    }
    let lab = format!("{SMOLTALK} lab --no-serve --");
    let in_lab = |program: &[&str]| -> Vec<String> {
        let command = lab.split(' ').chain(program.iter().copied());
        command.map(str::to_owned).collect()
    };
    let at_terminal = |code: &str, steps: &[&str], program: &[String]| {
        let output = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/terminal.py"))
            .arg(code)
            .args(steps)
            .arg("--")
            .args(program)
            .output()
            .expect("python3 runs");
        assert!(output.status.success(), "{}", told(&output));
    };
    // Programs that do not read the terminal, because what is typed could come before they do or after they
    // should. What they say differs from what is typed to start them.
    let sleep = r#"sh -c 'echo u""p; exec sleep 1000'"#;
    let resume = r#"sh -c 'trap "echo resumed; exit 6" CONT; echo u""p; sleep 1000 & wait'"#;
    let prompt = |typed: &str| format!(r"PROMPT> =>{typed}\n");

    // A shell with job control: interrupt, suspend, resume, leave.
    at_terminal(
        "5",
        &[
            &prompt(sleep),
            r"up\r\n=>\x03",
            &prompt("echo code=$?"),
            r"code=130\r\n=>",
            &prompt(resume),
            r"up\r\n=>\x1a",
            r"Stopped=>",
            &prompt("fg"),
            r"resumed\r\n=>",
            &prompt("echo code=$?"),
            r"code=6\r\n=>",
            &prompt("exit 5"),
        ],
        &in_lab(&["bash", "--norc", "-i"]),
    );
    // The lab is suspended and resumed together with its command.
    at_terminal(
        "4",
        &[
            &prompt(&format!("{lab} {resume}")),
            r"up\r\n=>\x1a",
            r"Stopped=>",
            &prompt("fg"),
            r"resumed\r\n=>",
            &prompt("echo code=$?"),
            r"code=6\r\n=>",
            &prompt("exit 4"),
        ],
        &["bash", "--norc", "-i"].map(str::to_owned),
    );
    // Control-C is heard once, and the lab outlives it; so it does control-backslash.
    let once = "import signal, sys\n\
                interrupt = [signal.SIGINT]\n\
                signal.pthread_sigmask(signal.SIG_BLOCK, interrupt)\n\
                print('up', flush=True)\n\
                first = signal.sigtimedwait(interrupt, 60)\n\
                second = signal.sigtimedwait(interrupt, 1)\n\
                sys.exit(9 if first and not second else 1)";
    at_terminal("9", &[r"up=>\x03"], &in_lab(&["python3", "-c", once]));
    let quit = "ulimit -c 0; echo up; exec sleep 1000";
    at_terminal("131", &[r"up=>\x1c"], &in_lab(&["sh", "-c", quit]));
    // A shell takes the terminal; after the lab it is back with those who started the lab.
    let script =
        format!("{lab} bash --norc -i; echo after; read line; test $line = hello && exit 3");
    at_terminal(
        "3",
        &[&prompt("exit"), r"after=>hello\n"],
        &["sh", "-c", &script].map(str::to_owned),
    );
}

#[test]
fn an_ordinary_user_can_make_a_lab() {
    const TEST: &str = "an_ordinary_user_can_make_a_lab";
    // The names are those of the user namespace; the program asks the services from the kernel's side.
    let script = "id -u; id -g; echo $$; grep -o tap0 /proc/net/dev; $0 greet $1";
    let Some(output) = as_ordinary_user(0o666, |program| {
        let greet = [program, "192.168.69.1:8898"];
        [&["lab", "--", "sh", "-c", script], &greet[..]].concat()
    }) else {
        return not_run(
            TEST,
            "only root can become an ordinary user with a TAP device",
        );
    };
    if output.status.code() == Some(4) {
        return not_run(TEST, &String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "0\n0\n2\ntap0\nhi\n",
        "{}",
        told(&output)
    );
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

#[test]
fn an_ordinary_user_is_told_what_is_missing() {
    const TEST: &str = "an_ordinary_user_is_told_what_is_missing";
    let Some(output) = as_ordinary_user(0o600, |_| vec!["lab", "--", "true"]) else {
        return not_run(
            TEST,
            "only root can become an ordinary user without a TAP device",
        );
    };
    assert_eq!(output.status.code(), Some(4), "{}", told(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for said in [
        "/dev/net/tun may not be opened, its mode is 0600",
        "sudo chmod 0666 /dev/net/tun",
        "sudo smoltalk lab",
    ] {
        assert!(stderr.contains(said), "{}", told(&output));
    }
}

#[test]
fn the_process_of_the_hidden_subcommand_is_not_for_people() {
    for args in [&["lab-init"][..], &["lab-init", "1", "2", "true"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    }
}

#[test]
fn programs_in_the_lab_reach_the_services() {
    in_lab("programs_in_the_lab_reach_the_services", &[], || {
        let patience = Some(Duration::from_secs(10));
        for ip in ["192.168.69.1", "[fdaa::1]"] {
            let address =
                |port: u16| -> SocketAddr { format!("{ip}:{port}").parse().expect("an address") };
            let mut stream = TcpStream::connect(address(8898)).expect("a connection");
            stream.set_read_timeout(patience).expect("a timeout");
            stream.write_all(b"hello").expect("sent");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("an answer");
            assert_eq!(answer, b"hi");
            let _ = stream.shutdown(Shutdown::Both);

            let any = if ip.starts_with('[') {
                "[::]:0"
            } else {
                "0.0.0.0:0"
            };
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.set_read_timeout(patience).expect("a timeout");
            let mut buf = [0; 1024];
            socket.send_to(b"hello", address(8898)).expect("sent");
            let (len, from) = socket.recv_from(&mut buf).expect("an answer");
            assert_eq!((&buf[..len], from), (&b"hi"[..], address(8898)));
            socket.send_to(b"%%", address(9000)).expect("sent");
            let (len, from) = socket.recv_from(&mut buf).expect("an answer");
            assert_eq!((&buf[..len], from), (&b"%"[..], address(9000)));
        }
    });
}

#[test]
fn the_services_answer_an_echo_request() {
    if !lab_permitted("the_services_answer_an_echo_request") {
        return;
    }
    // What `ping -c 3` does, without having to be installed.
    let ping = "import socket, struct\n\
        def checksum(data):\n\
        \x20   total = sum(struct.unpack('!%dH' % (len(data) // 2), data))\n\
        \x20   total = (total >> 16) + (total & 0xffff)\n\
        \x20   return ~(total + (total >> 16)) & 0xffff\n\
        icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)\n\
        icmp.settimeout(10)\n\
        for sequence in range(3):\n\
        \x20   body = b'small talk'\n\
        \x20   request = struct.pack('!BBHHH', 8, 0, 0, 77, sequence) + body\n\
        \x20   request = request[:2] + struct.pack('!H', checksum(request)) + request[4:]\n\
        \x20   icmp.sendto(request, ('192.168.69.1', 0))\n\
        \x20   answer, (host, _) = icmp.recvfrom(1024)\n\
        \x20   kind, code, _, id, number = struct.unpack('!BBHHH', answer[20:28])\n\
        \x20   print(host, kind, code, id, number, answer[28:] == body)";
    let output = run(["lab", "--", "python3", "-c", ping]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "192.168.69.1 0 0 77 0 True\n192.168.69.1 0 0 77 1 True\n192.168.69.1 0 0 77 2 True\n",
        "{}",
        told(&output)
    );
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

#[test]
fn labs_do_not_see_each_other() {
    if !lab_permitted("labs_do_not_see_each_other") {
        return;
    }
    // Each has its own 192.168.69.100 and port 8898, at the same time.
    let command = [
        "python3",
        "-c",
        "import socket, sys\n\
         kernel = socket.create_server(('192.168.69.100', 8898))\n\
         print('up', flush=True)\n\
         sys.stdin.read()\n\
         client = socket.create_connection(('192.168.69.1', 8898), 10)\n\
         client.sendall(b'hello')\n\
         print(client.recv(1024).decode())",
    ];
    let mut labs: Vec<(Running, std::io::PipeWriter)> = (0..2)
        .map(|_| {
            let (stdin, keep) = std::io::pipe().expect("a pipe");
            let mut lab = smoltalk();
            lab.args(["lab", "--"]).args(command).stdin(stdin);
            (Running::start(&mut lab), keep)
        })
        .collect();
    for (lab, _) in &mut labs {
        assert_eq!(lab.line().as_deref(), Some("up"));
    }
    for (lab, keep) in labs {
        drop(keep);
        let Ended {
            status,
            stdout,
            stderr,
        } = lab.wait();
        assert_eq!((status.code(), &*stdout), (Some(0), "hi\n"), "{stderr}");
    }
}

#[test]
fn a_command_can_serve_in_a_lab_without_services() {
    if !lab_permitted("a_command_can_serve_in_a_lab_without_services") {
        return;
    }
    let script = format!(
        "mkfifo $HOME/lines && {{ {SMOLTALK} serve --tap tap0 >$HOME/lines & }} && \
         while read line; do test \"$line\" = ready && break; done <$HOME/lines && \
         python3 -c \"import socket; s = socket.create_connection(('192.168.69.1', 8898), 10); \
         s.sendall(b'hello'); print(s.recv(1024).decode())\""
    );
    let home = std::env::temp_dir().join(format!("smoltalk-lab-home-{}", std::process::id()));
    fs::create_dir_all(&home).expect("a folder");
    let output = smoltalk()
        .args(["lab", "--no-serve", "--", "sh", "-c", &script])
        .env("HOME", &home)
        .output()
        .expect("smoltalk runs");
    let _ = fs::remove_dir_all(&home);
    assert_eq!(output.stdout, b"hi\n", "{}", told(&output));
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

/// Runs smoltalk as an ordinary user who sees a `/dev/net/tun` of the given mode, with the arguments that `args`
/// makes of the program's path. `None` if a test may not set that up here.
fn as_ordinary_user(
    tun_mode: u32,
    args: impl for<'p> FnOnce(&'p str) -> Vec<&'p str> + Send,
) -> Option<Output> {
    const NOBODY: u32 = 65_534;
    const NONE: Option<&Path> = None;
    if !geteuid().is_root() {
        return None;
    }
    // The build's own folder may be closed to others, and so is root's configuration.
    let program = copy_for_everybody();
    let mut command = Command::new(&program);
    command
        .args(args(program.to_str().expect("a path of ours")))
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .env("HOME", "/")
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::null());
    let prepare = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        let tmpfs = Some("tmpfs");
        mount(tmpfs, "/dev/net", tmpfs, MsFlags::empty(), NONE)?;
        let (tun, device) = ("/dev/net/tun", makedev(10, 200));
        mknod(tun, SFlag::S_IFCHR, Mode::empty(), device)?;
        fs::set_permissions(tun, Permissions::from_mode(tun_mode)).expect("a node of our own");
        Ok::<(), nix::Error>(())
    };
    // What is mounted so is seen by this thread and its children only.
    let output = thread::scope(|scope| {
        let output = scope.spawn(|| {
            prepare().ok()?;
            Some(command.output().expect("smoltalk runs"))
        });
        output.join().expect("the thread ends")
    });
    let _ = fs::remove_file(&program);
    output
}

/// A copy of the program that everybody may run.
fn copy_for_everybody() -> PathBuf {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let copy = COPIES.fetch_add(1, Ordering::Relaxed);
    let name = format!("smoltalk-lab-test-{}-{copy}", std::process::id());
    let program = std::env::temp_dir().join(name);
    fs::copy(SMOLTALK, &program).expect("a copy of the program");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("its mode");
    program
}
