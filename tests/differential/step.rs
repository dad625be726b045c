//! A step of a script: what one client sends at once, in the notation of transcripts.
//!
//! ```text
//! 0: Query "begin"
//! 1: Parse "" "select 1"
//!    Bind "" ""
//!    Execute ""
//!    Sync
//! 2& Query "select 2"
//! 3: Query "select 3"
//! 0: Connect application_name=again|options=-c timezone=UTC
//! ```
//!
//! The number is the client's. `&` in place of the colon: it is sent together with the next step, and both answers are read
//! then. `Connect` ends the client's session and opens another one with these startup parameters.

use std::fmt;

use pgweir_testkit::script;

/// What one client sends at once.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) client: usize,
    /// Sent together with the next step.
    pub(super) with_next: bool,
    pub(super) lines: Vec<String>,
}

impl Step {
    /// Takes the messages from a text that divides them by `//`.
    pub(super) fn new(client: usize, text: &str) -> Self {
        let lines = text
            .split(" // ")
            .map(|line| line.trim().to_owned())
            .collect();
        Self {
            client,
            with_next: false,
            lines,
        }
    }

    /// Returns the startup parameters when the step is a `Connect`.
    pub(super) fn connect(&self) -> Option<Vec<(&str, &str)>> {
        let list = self.lines.first()?.strip_prefix("Connect")?;
        Some(
            list.trim()
                .split('|')
                .filter_map(|pair| pair.split_once('='))
                .collect(),
        )
    }

    /// Returns the bytes to send, and how many ReadyForQuery they bring.
    pub(super) fn encode(&self) -> Result<(Vec<u8>, usize), String> {
        let mut bytes = Vec::new();
        for line in &self.lines {
            script::encode(line, &mut bytes).map_err(|error| format!("{line}: {error}"))?;
        }
        let brings_ready = |line: &&String| {
            ["Query ", "Sync", "FunctionCall "]
                .iter()
                .any(|name| line.starts_with(name))
        };
        Ok((bytes, self.lines.iter().filter(brings_ready).count()))
    }

    /// Returns how many statements it runs, a Query of several counted once.
    pub(super) fn statements(&self) -> usize {
        let runs = |line: &&String| {
            ["Query ", "Execute ", "FunctionCall "]
                .iter()
                .any(|name| line.starts_with(name))
        };
        self.lines.iter().filter(runs).count()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.with_next { '&' } else { ':' };
        let mut lines = self.lines.iter();
        write!(
            f,
            "{}{mark} {}",
            self.client,
            lines.next().map_or("", String::as_str)
        )?;
        lines.try_for_each(|line| write!(f, "\n   {line}"))
    }
}

/// A script with the sentence that names it, and the reason why the proxy may answer it differently today.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) name: String,
    pub(super) known: Option<String>,
    pub(super) steps: Vec<Step>,
}

/// Reads scripts: each begins with `# A sentence.`, maybe `! the reason why it fails today`, and has a step or more.
pub(super) fn parse_scripts(text: &str) -> Vec<Script> {
    let mut scripts: Vec<Script> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("//"))
    {
        if let Some(name) = line.strip_prefix("# ") {
            scripts.push(Script {
                name: name.to_owned(),
                known: None,
                steps: Vec::new(),
            });
            continue;
        }
        let script = scripts.last_mut().expect("a script begins with its name");
        if let Some(reason) = line.strip_prefix("! ") {
            script.known = Some(reason.to_owned());
        } else if line.starts_with(' ') {
            let step = script
                .steps
                .last_mut()
                .expect("a step begins with its client");
            step.lines.push(line.trim().to_owned());
        } else {
            script.steps.push(parse_step(line));
        }
    }
    scripts
}

fn parse_step(line: &str) -> Step {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let (client, rest) = line.split_at(digits);
    let client = client
        .parse()
        .unwrap_or_else(|_| panic!("no client: {line}"));
    let (mark, text) = rest.split_at(1);
    Step {
        with_next: mark == "&",
        lines: vec![text.trim().to_owned()],
        ..Step::new(client, "")
    }
}

#[test]
fn a_script_is_read_as_it_is_printed() {
    let text = "# One.\n! a reason\n0: Query \"begin\"\n1& Parse \"\" \"x\"\n   Sync\n";
    let scripts = parse_scripts(text);
    let [script] = scripts.as_slice() else {
        panic!("{scripts:?}")
    };
    assert_eq!(
        (script.name.as_str(), script.known.as_deref()),
        ("One.", Some("a reason"))
    );
    let printed: Vec<String> = script.steps.iter().map(Step::to_string).collect();
    assert_eq!(
        printed,
        ["0: Query \"begin\"", "1& Parse \"\" \"x\"\n   Sync"]
    );
    assert_eq!(script.steps[1].encode().expect("messages").1, 1);
    let connect = Step::new(0, "Connect a=b|options=-c x=y");
    assert_eq!(
        connect.connect(),
        Some(vec![("a", "b"), ("options", "-c x=y")])
    );
}
