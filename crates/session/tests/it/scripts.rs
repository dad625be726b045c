//! Random scripts of what a client sends, and the random numbers behind them.

use crate::notation::{bind, client_bytes};

/// SplitMix64: the same seed gives the same numbers everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

/// What a client sends in one go, and whether it then waits for all replies.
pub(crate) struct Step {
    pub(crate) bytes: Vec<u8>,
    pub(crate) waits: bool,
}

/// Names of statements: few, so that they are used again.
const NAMES: [&str; 4] = ["", "a", "b", "c"];
const PORTALS: [&str; 4] = ["", "", "p", "q"];

/// Texts that can be prepared. Few as well: so sessions share them.
const TEXTS: [&str; 13] = [
    "select rows 1",
    "select rows 3",
    "select x",
    "select y",
    "select z",
    "select raise",
    "insert into t values (1)",
    "select fail 0",
    "select fail 2",
    "show application_name",
    "select big 3000",
    "select wide",
    "",
];

/// Texts that change more.
const COMMANDS: [&str; 7] = [
    "begin",
    "commit",
    "rollback",
    "begin",
    "commit",
    "copy t to stdout",
    "selec x",
];

/// Writes one script.
pub(crate) struct Writer<'a> {
    pub(crate) random: &'a mut Random,
    pub(crate) steps: Vec<Step>,
    /// DISCARD ALL as well. Not for a client with parameters of its own: it would be told that they are reset, and not
    /// that they are then set again.
    pub(crate) discards: bool,
}

impl Writer<'_> {
    fn step(&mut self, text: &str, waits: bool) {
        self.steps.push(Step {
            bytes: client_bytes(text),
            waits,
        });
    }

    /// A step behind which the client may wait.
    fn batch(&mut self, text: &str) {
        let waits = self.random.one_in(2);
        self.step(text, waits);
    }

    fn text(&mut self) -> String {
        match self.random.below(10) {
            0 | 1 => self.random.pick(&COMMANDS).to_owned(),
            2 => format!("select unique{}", self.random.below(1000)),
            _ => self.random.pick(&TEXTS).to_owned(),
        }
    }

    /// Appends something for the client to do.
    pub(crate) fn write(&mut self) {
        match self.random.below(17) {
            16 => self.forget(),
            0 | 1 => {
                let text = self.text();
                self.batch(&format!("Query({text})"));
            }
            2 => {
                let (first, second) = (self.text(), self.text());
                self.batch(&format!("Query({first};{second})"));
            }
            3 | 4 => {
                let text = self.text();
                self.batch(&format!(
                    "Parse(,{text}) | Bind(,) | Describe(P ) | Execute | Sync"
                ));
            }
            5 | 6 => self.prepare(),
            7 | 8 => {
                let name = self.random.pick(&NAMES);
                self.batch(&format!("Bind(,{name},v) | Execute | Sync"));
            }
            9 | 10 => self.soup(),
            11 => self.suspended_portal(),
            12 => self.copy_in(),
            13 => self.batch("Call"),
            14 => self.volatile(),
            _ => self.large(),
        }
    }

    /// Statements go. What the same batch does with a statement behind that is not foreseen: it fails, with our name for it.
    fn forget(&mut self) {
        let command = if self.discards {
            self.random.pick(&["discard all", "deallocate all"])
        } else {
            "deallocate all"
        };
        let batch = self.random.pick(&[
            "Query(_)",
            "Parse(,_) | Bind(,) | Execute | Sync",
            "Close(S d) | Parse(d,_) | Describe(S d) | Bind(,d) | Execute | Sync",
        ]);
        self.batch(&batch.replace('_', command));
    }

    fn prepare(&mut self) {
        let (name, text) = (self.random.pick(&NAMES), self.text());
        let mut batch = format!("Parse({name},{text})");
        if self.random.one_in(3) {
            batch = format!("Close(S {name}) | {batch}");
        }
        if self.random.one_in(2) {
            batch.push_str(&format!(" | Describe(S {name})"));
        }
        if self.random.one_in(3) {
            self.batch(&format!("{batch} | Flush"));
            batch = format!("Bind(,{name}) | Execute");
        }
        self.batch(&format!("{batch} | Sync"));
    }

    /// Extended messages in any order.
    fn soup(&mut self) {
        let mut batch = String::new();
        for _ in 0..1 + self.random.below(7) {
            let (name, portal, text) = (
                self.random.pick(&NAMES),
                self.random.pick(&PORTALS),
                self.text(),
            );
            let message = match self.random.below(12) {
                0..=2 => format!("Parse({name},{text})"),
                3 | 4 => format!("Bind({portal},{name},v)"),
                5 | 6 => format!("Execute({portal},{})", self.random.below(3)),
                7 => format!("Describe(S {name})"),
                8 => format!("Describe(P {portal})"),
                9 | 10 => format!("Close(S {name})"),
                _ => "Flush".to_owned(),
            };
            batch.push_str(&message);
            batch.push_str(" | ");
        }
        // A Query among them, which ends nothing.
        if self.random.one_in(8) {
            batch.push_str("Query(select x) | ");
        }
        self.batch(&format!("{batch}Sync"));
    }

    fn suspended_portal(&mut self) {
        self.batch("Query(begin)");
        self.batch("Parse(,select rows 5) | Bind(p,) | Execute(p,2) | Sync");
        if self.random.one_in(2) {
            self.batch("Query(select y)");
        }
        self.batch("Execute(p,2) | Flush");
        self.batch("Execute(p,2) | Close(P p) | Sync");
        let end = self.random.pick(&["commit", "rollback"]);
        self.batch(&format!("Parse(,{end}) | Bind(,) | Execute | Sync"));
    }

    fn copy_in(&mut self) {
        let table = self.random.pick(&["t", "t", "t", "missing"]);
        let is_simple = self.random.one_in(2);
        if is_simple {
            let more = self.random.pick(&["", ";select x", ";copy t from stdin"]);
            self.batch(&format!("Query(copy {table} from stdin{more})"));
            if more.ends_with("stdin") {
                self.batch("CopyData(1) | CopyDone");
            }
        } else {
            let end = self.random.pick(&["Sync", "Flush"]);
            self.batch(&format!(
                "Close(S cp) | Parse(cp,copy {table} from stdin) | Bind(,cp) | Execute | {end}"
            ));
            if self.random.one_in(5) {
                self.copy_that_is_broken_off();
                return;
            }
        }
        for _ in 0..self.random.below(4) {
            let line = self.random.pick(&["line", "line", "line", "line", "bad"]);
            self.step(&format!("CopyData({line})"), false);
        }
        let end = self
            .random
            .pick(&["CopyDone", "CopyDone", "CopyFail(enough)"]);
        if is_simple {
            // Without COPY nothing answers, so nothing is waited for.
            self.batch(end);
        } else {
            self.batch(&format!("{end} | Sync"));
        }
    }

    /// Something else comes where the server waits for COPY data.
    fn copy_that_is_broken_off(&mut self) {
        if let Some(step) = self.steps.last_mut() {
            step.waits = true;
        }
        let (name, message) = (
            self.random.pick(&NAMES),
            self.random.pick(&["Parse", "Bind", "Close", "Query"]),
        );
        let message = match message {
            "Parse" => format!("Parse({name},select x)"),
            "Bind" => format!("Bind(,{name})"),
            "Close" => format!("Close(S {name})"),
            _ => "Query(select x)".to_owned(),
        };
        self.batch(&format!("CopyData(1) | {message} | Execute | Sync"));
    }

    /// A read that a replica refuses, at the place where that can be repaired: before anything of its result.
    fn volatile(&mut self) {
        let batch = self.random.pick(&[
            "Query(select volatile)",
            "Parse(,select volatile) | Bind(,) | Describe(P ) | Execute | Sync | Parse(,select x) | Sync",
            "Close(S v) | Parse(v,select volatile) | Bind(,v) | Execute | Close(S v) | Sync",
        ]);
        self.batch(batch);
    }

    /// Something that passes through in pieces.
    fn large(&mut self) {
        let name = self.random.pick(&NAMES);
        let size = 30_000 + self.random.below(60_000);
        match self.random.below(4) {
            0 => self.batch(&format!("Query(select {})", "l".repeat(size))),
            1 => self.batch(&format!(
                "Parse({name},select {}) | Bind(,{name}) | Execute | Sync",
                "m".repeat(size)
            )),
            2 => self.batch("Query(select big 50000)"),
            _ => {
                let mut bytes = Vec::new();
                bind(b"", name.as_bytes(), Some(&vec![b'v'; size]), &mut bytes);
                bytes.extend(client_bytes("Execute | Sync"));
                let waits = self.random.one_in(2);
                self.steps.push(Step { bytes, waits });
            }
        }
    }
}
