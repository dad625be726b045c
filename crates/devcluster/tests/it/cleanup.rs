//! Nothing outlives its owner: after a drop, and after the owner's SIGKILL.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgweir_devcluster::{Cluster, StopMode};

/// When set, this test binary's process plays the owner that gets killed.
const OWNER: &str = "PGWEIR_DEVCLUSTER_TEST_OWNER";

/// Live processes (zombies aside) that work in the folder or name it.
fn processes_of(folder: &Path) -> Vec<String> {
    let name = folder.to_string_lossy().into_owned();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|process| {
            let cwd = std::fs::read_link(process.join("cwd")).unwrap_or_default();
            let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
            cwd.to_string_lossy().starts_with(&name)
                || String::from_utf8_lossy(&arguments).contains(&name)
        })
        .map(|process| process.display().to_string())
        .collect()
}

fn wait_gone(folder: &Path) {
    let started_at = Instant::now();
    while folder.exists() || !processes_of(folder).is_empty() {
        assert!(
            started_at.elapsed() < Duration::from_secs(20),
            "left behind: {} {:?}",
            folder.exists(),
            processes_of(folder)
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_dropped_cluster_leaves_no_process_and_no_folder() {
    let cluster = Cluster::builder().replicas(2).start().unwrap();
    let folder = cluster.folder().to_path_buf();
    assert!(processes_of(&folder).len() > 3);
    cluster.replica(0).stop(StopMode::Fast).unwrap();
    cluster.replica(1).kill().unwrap();
    drop(cluster);
    assert!(!folder.exists());
    assert_eq!(processes_of(&folder), Vec::<String>::new());
}

#[test]
fn a_panicking_owner_leaves_nothing() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let owner = std::thread::spawn(move || {
        let cluster = Cluster::builder().start().unwrap();
        sender.send(cluster.folder().to_path_buf()).unwrap();
        panic!("on purpose");
    });
    let folder: PathBuf = receiver.recv().unwrap();
    assert!(owner.join().is_err());
    assert!(!folder.exists());
}

#[test]
fn a_killed_owner_leaves_nothing() {
    if std::env::var_os(OWNER).is_some() {
        let cluster = Cluster::builder().replicas(1).start().unwrap();
        println!("folder={}", cluster.folder().display());
        loop {
            std::thread::park();
        }
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "cleanup::a_killed_owner_leaves_nothing",
            "--exact",
            "--nocapture",
        ])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(owner.stdout.take().unwrap());
    let folder = std::io::BufRead::lines(output)
        .find_map(|line| {
            line.unwrap()
                .split_once("folder=")
                .map(|(_, path)| PathBuf::from(path))
        })
        .unwrap();
    assert!(processes_of(&folder).len() > 2);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_gone(&folder);
}
