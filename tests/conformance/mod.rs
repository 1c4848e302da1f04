//! The conformance suite: every exchange of the script over one backend, its transcript compared byte for byte
//! with the one in `transcript.txt`. Backends that pass therefore agree with each other too.

use smoltalk::sim::script::{EXCHANGES, Exchange, IpVersion, write_transcript};

/// The transcript that every backend must produce.
pub const TRANSCRIPT: &str = include_str!("transcript.txt");

/// A client's way to a set of services that were told [`smoltalk::sim::script::WALL`] and
/// [`smoltalk::sim::script::AUTO_REPLY`].
pub trait Backend {
    /// Has one exchange on a new socket, and returns what came back: as many datagrams as the exchange
    /// expects, and those that came on top of them; or the whole stream as one.
    fn answers(&mut self, version: IpVersion, exchange: &Exchange) -> Vec<Vec<u8>>;
}

/// Runs the whole script over `backend`.
pub fn conform(backend: &mut dyn Backend) {
    let mut transcript = String::new();
    for version in IpVersion::ALL {
        for exchange in EXCHANGES {
            let answers = backend.answers(version, exchange);
            let answers = answers.iter().map(Vec::as_slice);
            write_transcript(&mut transcript, version, exchange, answers).unwrap();
        }
    }
    let differs = transcript
        .lines()
        .zip(TRANSCRIPT.lines())
        .position(|(ours, expected)| ours != expected);
    if let Some(line) = differs {
        panic!(
            "line {} of the transcript is\n{}\nand should be\n{}",
            line + 1,
            transcript.lines().nth(line).unwrap_or_default(),
            TRANSCRIPT.lines().nth(line).unwrap_or_default()
        );
    }
    assert_eq!(transcript, TRANSCRIPT);
}
