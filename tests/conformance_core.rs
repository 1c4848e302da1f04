//! The conformance suite over the backends that need no operating system.

#[allow(dead_code)]
mod conformance;

use smoltalk::sim::script::{EXCHANGES, IpVersion, write_transcript};

/// The transcript is the script's, so that it can be read, reviewed and compared without running anything.
/// To write it anew after a change to the script: `UPDATE_TRANSCRIPT=1 cargo test --test conformance_core`.
#[test]
fn the_transcript_is_what_the_script_expects() {
    let mut expected = String::new();
    for version in IpVersion::ALL {
        for exchange in EXCHANGES {
            let answers = exchange.answers.iter().copied();
            write_transcript(&mut expected, version, exchange, answers).unwrap();
        }
    }
    if std::env::var_os("UPDATE_TRANSCRIPT").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/conformance/transcript.txt"
        );
        std::fs::write(path, &expected).unwrap();
        return;
    }
    assert_eq!(expected, conformance::TRANSCRIPT);
}
