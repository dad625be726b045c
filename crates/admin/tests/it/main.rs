//! What the crate serves, asked for as its users ask.

#[cfg(test)]
mod console;
#[cfg(test)]
mod exposition;
#[cfg(test)]
mod http;
#[cfg(test)]
mod page;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod sample;
