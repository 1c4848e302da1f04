//! The tour: all of it right, and told so that people and programs can read it.

mod support;

use serde_json::Value;
use smoltalk::sim::script::EXCHANGES;
use support::{lab_permitted, run_with_input, smoltalk};

#[test]
fn every_exchange_is_right_on_every_stack() {
    // What a person has set for the services is not meant for the demo's.
    let ended = run_with_input(
        smoltalk()
            .args(["demo", "--json"])
            .envs([("SMOLTALK_TIME", "off"), ("SMOLTALK_BIND", "192.0.2.1")]),
        "",
    );
    let records: Vec<Value> = ended
        .expect(0, "")
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let of = |event: &str, stack: &str| {
        let is_it = |record: &&Value| record["event"] == event && record["stack"] == stack;
        records.iter().filter(is_it).collect::<Vec<_>>()
    };
    let mut stacks = vec!["host sockets", "smoltcp in memory"];
    if lab_permitted("every_exchange_is_right_on_every_stack") {
        stacks.push("smoltcp on TAP");
    } else {
        assert_eq!(of("not_run", "smoltcp on TAP").len(), 1);
    }
    for stack in stacks {
        let exchanges = of("exchange", stack);
        // Over IPv4 and over IPv6.
        assert_eq!(
            exchanges.len(),
            2 * EXCHANGES.len(),
            "{stack}: {records:#?}"
        );
        for (record, script) in exchanges.iter().zip(EXCHANGES.iter().cycle()) {
            let answers: Vec<_> = record["answers"]
                .as_array()
                .expect("an array")
                .iter()
                .map(|answer| answer["text"].as_str().expect("each is text").as_bytes())
                .collect();
            assert_eq!(
                (&record["name"], &record["ok"]),
                (&script.name.into(), &true.into())
            );
            assert_eq!(answers, script.answers, "{stack}: {}", script.name);
        }
        assert_eq!(of("summary", stack).len(), 4);
    }
    for stack in ["host sockets", "smoltcp in memory"] {
        let talk = of("talk", stack);
        let said: Vec<_> = talk
            .iter()
            .map(|record| (&record["from"], &record["ok"]))
            .collect();
        assert_eq!(
            said,
            [
                (&"金老板".into(), &true.into()),
                (&"哪吒".into(), &true.into())
            ]
        );
    }
}

#[test]
fn it_fits_a_terminal_of_80_columns() {
    let ended = run_with_input(smoltalk().arg("demo"), "");
    let text = &ended.expect(0, "").stdout;
    // Chinese characters are two columns wide.
    let width = |line: &str| {
        line.chars()
            .map(|c| 1 + usize::from(c > '\u{2e80}'))
            .sum::<usize>()
    };
    for line in text.lines() {
        assert!(width(line) <= 80, "{line}");
    }
    assert!(!text.contains('\x1b'));
    for expected in [
        "\n  greeting tcp 192.0.2.2:",
        "2016-02-29 12:34:56\n",
        "> 192.0.2.1:8898 5 B hello\n",
        "哪吒，你好！\n",
        "                host sockets        smoltcp in memory   smoltcp on TAP\n",
        "\n  chat udp      ok, 12 of 12        ok, 12 of 12        ",
    ] {
        assert!(text.contains(expected), "{expected:?}: {text}");
    }
    let coloured = run_with_input(smoltalk().args(["demo", "--color", "always"]), "");
    assert!(
        coloured.stdout.contains("\x1b[1;37;44m哪吒，你好！\x1b[0m"),
        "{}",
        coloured.stdout
    );
}
