//! The chat, driven by a script.

mod support;

use std::net::UdpSocket;
use std::process::Stdio;
use std::time::Duration;

use support::{Ended, Running, run_with_input, smoltalk};

/// Somebody to chat with.
struct Peer {
    socket: UdpSocket,
    address: String,
}

impl Peer {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let address = socket.local_addr().unwrap().to_string();
        Self { socket, address }
    }

    /// As the command line has a contact.
    fn named(&self, name: &str) -> String {
        format!("{name}={}", self.address)
    }

    #[track_caller]
    fn hear(&self) -> String {
        let mut buf = [0; 2048];
        let (len, _) = self.socket.recv_from(&mut buf).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    }

    /// Answers the next message.
    fn answer(&self, with: &str) {
        let mut buf = [0; 2048];
        let (_, from) = self.socket.recv_from(&mut buf).unwrap();
        self.socket.send_to(with.as_bytes(), from).unwrap();
    }
}

/// Runs a chat to its end with `input`, at a port that is free, and does not wait for answers.
fn chat(arguments: &[&str], input: &str) -> Ended {
    let fixed = ["chat", "--listen", "0", "--timeout", "0"];
    let arguments = fixed.iter().chain(arguments).copied();
    run_with_input(smoltalk().args(arguments), input)
}

/// What was said on standard error, but for where the chat listens.
fn complaints(ended: &Ended) -> Vec<&str> {
    let lines = ended.stderr.lines();
    lines
        .filter(|line| !line.starts_with("smoltalk: listening chat udp 127.0.0.1:"))
        .collect()
}

#[test]
fn lines_go_to_the_contact_until_q_and_then_to_the_next() {
    let (egg, yuan, stranger) = (Peer::new(), Peer::new(), Peer::new());
    let input = format!(
        "egg\nhello\n\n  two  \nq\nyuan\n你好\nq\n{}\nwho?\nq\nq\nnot read\n",
        stranger.address
    );
    let ended = chat(
        &[
            "--contact",
            &egg.named("egg"),
            "--contact",
            &yuan.named("yuan"),
        ],
        &input,
    );
    assert_eq!(ended.expect(0, "").stdout, "");
    assert_eq!(complaints(&ended), [""; 0]);
    assert_eq!((egg.hear(), egg.hear()), ("hello".into(), "  two  ".into()));
    assert_eq!(yuan.hear(), "你好");
    assert_eq!(stranger.hear(), "who?");
}

#[test]
fn a_name_on_the_command_line_needs_no_first_line() {
    let egg = Peer::new();
    let ended = chat(&["egg", "--contact", &egg.named("egg")], "hello\nbye");
    assert_eq!(complaints(ended.expect(0, "")), [""; 0]);
    assert_eq!((egg.hear(), egg.hear()), ("hello".into(), "bye".into()));

    chat(
        &[
            "bob",
            "--contact",
            &egg.named("egg"),
            "--contact",
            &egg.named("yuan"),
        ],
        "",
    )
    .expect(
        1,
        "smoltalk: unknown contact `bob`: the contacts are egg, yuan; give another name",
    );
    chat(&["bob"], "").expect(
        1,
        "smoltalk: unknown contact `bob`: there are no contacts; give",
    );
    // Nothing to say, nothing to wait for.
    chat(
        &["egg", "--contact", &egg.named("egg"), "--timeout", "3600"],
        "",
    )
    .expect(0, "");
}

#[test]
fn what_comes_is_shown_as_in_the_tutorial_and_never_raw() {
    let (egg, stranger) = (Peer::new(), Peer::new());
    let mut running = Running::start(
        smoltalk()
            .args([
                "chat",
                "--listen",
                "0",
                "--color",
                "always",
                "--timeout",
                "3600",
                "egg",
                "--contact",
                &egg.named("egg"),
            ])
            .stdin(Stdio::piped()),
    );
    running.write(b"hello\n");
    let mut buf = [0; 64];
    let (len, chat) = egg.socket.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"hello");
    stranger
        .socket
        .send_to("\u{1b}[2Jgot\u{7} you\r".as_bytes(), chat)
        .unwrap();
    assert_eq!(
        running.line_with("message from"),
        format!(
            "message from [{}]: \x1b[1;37;44m\\x1b[2Jgot\\x07 you\\r\x1b[0m",
            stranger.address
        )
    );
    // Not UTF-8, and so no message.
    egg.socket.send_to(b"\xff", chat).unwrap();
    egg.socket.send_to("你好".as_bytes(), chat).unwrap();
    assert_eq!(
        running.line_with("message from"),
        format!(
            "message from egg [{}]: \x1b[1;37;44m你好\x1b[0m",
            egg.address
        )
    );
    // Whoever was written to has answered, so nobody is waited for.
    assert_eq!(running.wait().expect(0, "").stdout, "");
}

#[test]
fn after_the_end_answers_are_waited_for() {
    let egg = Peer::new();
    let contact = egg.named("egg");
    let running = Running::start(
        smoltalk()
            .args([
                "chat",
                "--listen",
                "0",
                "--timeout",
                "3600",
                "egg",
                "--contact",
                &contact,
                "--json",
            ])
            .stdin(Stdio::piped()),
    );
    let waiting = std::thread::spawn(move || {
        let mut running = running;
        running.write(b"hello\n");
        running.wait()
    });
    egg.answer("late");
    let ended = waiting.join().unwrap();
    let mut lines = ended.expect(0, "").stdout.lines();
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with(r#"{"event":"listening","service":"chat""#))
    );
    assert_eq!(
        lines.next().unwrap(),
        format!(
            r#"{{"event":"message","from":"egg","address":"{}","text":"late"}}"#,
            egg.address
        )
    );
}

#[test]
fn lines_that_cannot_be_sent_are_told_at_once_and_the_others_are_sent() {
    let egg = Peer::new();
    let mut input = b"nobody\nhello\negg\n".to_vec();
    input.extend_from_slice(&[b'x'; 1025]);
    input.extend_from_slice(b"\n\xff\xfe\nlast\n");
    let contact = egg.named("egg");
    let mut command = smoltalk();
    command.args([
        "chat",
        "--listen",
        "0",
        "--timeout",
        "0",
        "--contact",
        &contact,
    ]);
    let ended = run_with_input(&mut command, input);
    assert_eq!(
        complaints(&ended),
        [
            "smoltalk: line 1: not sent: unknown contact `nobody`: the contacts are egg; give another name, or an \
             address as HOST:PORT",
            "smoltalk: line 2: not sent: unknown contact `hello`: the contacts are egg; give another name, or an \
             address as HOST:PORT",
            "smoltalk: line 4: not sent: it has 1025 bytes, and a message at most 1024",
            "smoltalk: line 5: not sent: it is not UTF-8",
            "smoltalk: 4 lines were not sent or not delivered",
        ]
    );
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(egg.hear(), "last");
}

#[test]
fn a_message_that_nobody_takes_is_told_of() {
    // It has a port, and takes nothing there but from another.
    let refusing = Peer::new();
    refusing.socket.connect("127.0.0.1:9").unwrap();
    let (contact, address) = (refusing.named("egg"), &refusing.address);
    let mut command = smoltalk();
    command.args([
        "chat",
        "--listen",
        "0",
        "egg",
        "--contact",
        &contact,
        "--timeout",
        "3600",
    ]);
    let ended = run_with_input(&mut command, "hello\n");
    assert_eq!(
        complaints(&ended),
        [
            &*format!(
                "smoltalk: message to egg [{address}] not delivered: refused: nothing listens on that port"
            ),
            "smoltalk: 1 line was not sent or not delivered",
        ]
    );
    assert_eq!(ended.status.code(), Some(1));
    // Of another IP version than the chat is.
    let ended = chat(&["egg", "--contact", "egg=[::1]:9"], "hello\n");
    assert!(
        complaints(&ended)[0]
            .starts_with("smoltalk: line 1: not sent: [::1]:9 is of another IP version"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_long_script_is_sent_whole_and_in_order() {
    let egg = Peer::new();
    // What the system gives without being asked holds some 270 short datagrams; this is nearly twice as many.
    let socket = socket2::SockRef::from(&egg.socket);
    socket.set_recv_buffer_size(1 << 20).unwrap();
    let lines: Vec<_> = (0..400).map(|number| format!("line {number}")).collect();
    let ended = chat(&["egg", "--contact", &egg.named("egg")], &lines.join("\n"));
    assert_eq!(complaints(ended.expect(0, "")), [""; 0]);
    for line in lines {
        assert_eq!(egg.hear(), line);
    }
}
