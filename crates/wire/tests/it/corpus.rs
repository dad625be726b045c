//! Every file of the corpus goes through every decoder: captures of real sessions, and inputs that once were, or well might be, trouble.
//!
//! The first part of a file's name says what it holds: `startup-`, `frontend-`, `backend-`, `pgoutput-` or `hostile-`.

use std::{fs, path::PathBuf};

use pgweir_wire::{Frames, StartupPacket, backend, frontend, fuzzing, limits};

/// Returns name and content of every file, sorted by name.
pub(crate) fn files() -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = fs::read_dir(&directory)
        .expect("the corpus directory")
        .map(|entry| {
            let entry = entry.expect("a directory entry");
            let content = fs::read(entry.path()).expect("a readable corpus file");
            (entry.file_name().to_string_lossy().into_owned(), content)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn no_file_of_the_corpus_makes_any_decoder_panic() {
    let files = files();
    assert!(files.len() >= 10, "the corpus is there");
    for (_name, content) in &files {
        for target in super::smoke::TARGETS {
            target(content);
            // Whole streams are no single messages: every frame of them is one.
            let mut frames = Frames::new(content);
            while let Ok(Some(frame)) = frames.next() {
                let mut single = vec![frame.tag];
                single.extend_from_slice(frame.body());
                target(&single);
            }
        }
    }
}

#[test]
fn captured_streams_decode_whole() {
    for (name, content) in files() {
        let mut frames = Frames::new(&content);
        match name.split('-').next() {
            Some("frontend") => {
                while let Some(frame) = frames.next().expect(&name) {
                    frontend::Message::decode(frame).expect(&name);
                }
                assert!(frames.rest().is_empty(), "{name} ends inside a frame");
            }
            Some("backend") => {
                while let Some(frame) = frames.next().expect(&name) {
                    backend::Message::decode(frame).expect(&name);
                }
                assert!(frames.rest().is_empty(), "{name} ends inside a frame");
            }
            Some("startup") => {
                let packet =
                    StartupPacket::decode(&content, limits::MAX_STARTUP_PACKET).expect(&name);
                assert_eq!(packet.map(|(_, size)| size), Some(content.len()), "{name}");
            }
            Some("pgoutput") => {
                fuzzing::pgoutput(&content);
                pgweir_wire::pgoutput::LogicalMessage::decode(&content).expect(&name);
            }
            Some("hostile") => {}
            _ => panic!("{name}: no known kind of corpus file"),
        }
    }
}
