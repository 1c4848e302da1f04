//! The benchmark's command line.

use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

/// Measures smoltalk beside the limit and its peers.
#[derive(Debug, Parser)]
#[command(name = "compare", version)]
pub struct Options {
    /// Run only the cases whose name begins with NAME; may be repeated [default: all]
    #[arg(long = "case", value_name = "NAME")]
    pub cases: Vec<String>,

    /// Print the names of the cases
    #[arg(long)]
    pub list: bool,

    /// How often each contender has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// Length of a turn, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub slice: u64,

    /// Three short rounds: to see whether everything runs, not how fast
    #[arg(long)]
    pub quick: bool,

    /// Run only the contenders whose name contains TEXT, and the limit; may be repeated [default: all]
    #[arg(long = "only", value_name = "TEXT")]
    pub only: Vec<String>,

    /// Measure another smoltalk too; may be repeated. COMMAND is the program and options for its `serve`
    #[arg(long = "server", value_name = "NAME=COMMAND")]
    pub servers: Vec<Server>,

    /// Write all figures as JSON (this and the other files: relative to the root of the repository)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the tables into FILE, between its lines `<!-- results -->` and `<!-- end of results -->`
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// Draw the ratios as a chart
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Given by `cargo bench`
    #[arg(long = "bench", hide = true)]
    pub _bench: bool,
}

impl Options {
    pub fn rounds(&self) -> u32 {
        if self.quick { 3 } else { self.rounds }
    }

    pub fn slice(&self) -> Duration {
        Duration::from_millis(if self.quick { 100 } else { self.slice })
    }

    /// Every smoltalk to measure: the one that was built with the benchmark, and those asked for.
    pub fn servers(&self) -> Vec<Server> {
        let own = Server {
            name: "smoltalk".to_owned(),
            program: env!("CARGO_BIN_EXE_smoltalk").into(),
            arguments: Vec::new(),
        };
        [own].into_iter().chain(self.servers.clone()).collect()
    }
}

/// A `smoltalk` to measure.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: String,
    pub program: PathBuf,
    /// For `serve`, besides where it is to serve.
    pub arguments: Vec<String>,
}

impl Server {
    /// Whether its `serve` has the option `name`.
    pub fn has(&self, name: &str) -> bool {
        let help = Command::new(&self.program)
            .args(["serve", "--help"])
            .output();
        help.is_ok_and(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.split_whitespace().any(|word| word == name)
        })
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not NAME=COMMAND"))?;
        let mut words = command.split_whitespace().map(str::to_owned);
        let program = words
            .next()
            .ok_or_else(|| format!("`{text}` names no program"))?;
        Ok(Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: words.collect(),
        })
    }
}
