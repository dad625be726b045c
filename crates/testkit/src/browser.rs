//! A headless Chromium, to look at a page as people do.
//!
//! `browser.mjs` drives it, because Node is there for the drivers' tests anyway and can pass Chromium the two pipes that it is
//! driven by; so no library is needed on either side. Values come back as JSON text, since this crate reads none.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What went wrong with the browser.
#[derive(Debug)]
pub enum BrowserError {
    /// It cannot be started, or has ended.
    Gone(io::Error),
    /// It refused a command; an expression that throws is refused, too.
    Refused(String),
}

impl std::fmt::Display for BrowserError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BrowserError::Gone(error) => write!(f, "the browser is gone: {error}"),
            BrowserError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for BrowserError {}

impl From<io::Error> for BrowserError {
    fn from(error: io::Error) -> Self {
        BrowserError::Gone(error)
    }
}

/// A page in a browser; both end when it is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Browser {
    /// Starts a browser and lets it go to an address.
    ///
    /// # Errors
    ///
    /// There is no Node or no Chromium.
    pub fn open(url: &str) -> Result<Self, BrowserError> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/browser.mjs");
        let mut driver = Command::new("node")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(commands), Some(answers)) = (driver.stdin.take(), driver.stdout.take()) else {
            return Err(io::Error::other("no pipes").into());
        };
        let mut browser = Browser {
            driver,
            commands: Some(commands),
            answers: BufReader::new(answers),
        };
        browser.command("open", url)?;
        Ok(browser)
    }

    /// Returns the value of an expression, as JSON; a promise is waited for.
    ///
    /// # Errors
    ///
    /// It throws.
    pub fn eval(&mut self, expression: &str) -> Result<String, BrowserError> {
        self.command("eval", expression)
    }

    /// Gives the window another size, in pixels.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn resize(&mut self, width: u32, height: u32) -> Result<(), BrowserError> {
        self.command("size", &format!("{width} {height}")).map(drop)
    }

    /// Lets the page see that its reader prefers `light` or `dark`.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn prefer(&mut self, scheme: &str) -> Result<(), BrowserError> {
        self.command("scheme", scheme).map(drop)
    }

    /// Writes what the window shows to a PNG file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn screenshot(&mut self, path: &Path) -> Result<(), BrowserError> {
        self.command("shot", &path.display().to_string()).map(drop)
    }

    /// Returns the errors and warnings of the console so far, as a JSON array of texts: `[]` where there is none.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn errors(&mut self) -> Result<String, BrowserError> {
        self.command("errors", "")
    }

    fn command(&mut self, name: &str, argument: &str) -> Result<String, BrowserError> {
        let Some(commands) = &mut self.commands else {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        };
        // A command is a line.
        let argument = argument.replace(['\n', '\r'], " ");
        writeln!(commands, "{name} {argument}")?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match answer.trim_end().split_once(' ') {
            Some(("ok", value)) => Ok(value.to_owned()),
            Some((_, why)) => Err(BrowserError::Refused(why.to_owned())),
            None => Err(BrowserError::Refused(answer)),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser when its commands do.
        drop(self.commands.take());
        let _ = self.driver.wait();
    }
}
