//! The texts that a batch runs, for those who look for something in them beside what classification keeps.

use pgweir_wire::Frames;
use pgweir_wire::frontend::{Bind, Parse, Query, tag};

use super::ClientSession;

impl ClientSession {
    /// Returns what `find` first finds in a text of the batch at hand: of its queries, of the statements that it prepares, and
    /// of those that it binds. The batch must not have been forwarded yet.
    pub fn find_in_texts<T>(&self, batch: &[u8], find: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let mut frames = Frames::new(batch);
        while let Ok(Some(frame)) = frames.next() {
            let found = match frame.tag {
                tag::QUERY => {
                    let query = Query::decode(frame.body());
                    query.ok().and_then(|query| find(query.sql))
                }
                tag::PARSE => {
                    let parse = Parse::decode(frame.body());
                    parse.ok().and_then(|parse| find(parse.sql))
                }
                tag::BIND => {
                    let bind = Bind::decode(frame.body());
                    let statement = bind.ok().and_then(|bind| self.bound(bind.statement));
                    statement.and_then(|statement| find(statement.text()))
                }
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}
