//! `kill -9` at 200 random points of put, commit and delete, of the command and of the daemon.
//! After each, `fsck` finds nothing and every acknowledged version is there byte for byte. Unneeded
//! bytes are freed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::random::Random;
use crate::world::{World, noise};

/// The number of kills.
const KILLS: u64 = 200;

struct Killer {
    world: World,
    random: Random,
    /// The acknowledged versions, with the seeds of their content.
    acknowledged: BTreeMap<String, u64>,
}

fn fill(root: &Path, seed: u64) {
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root.join("d")).unwrap();
    for number in 0..30u64 {
        // Half of the files are equal in every version.
        let content = if number % 2 == 0 { number } else { seed * 1_000 + number };
        fs::write(root.join(format!("d/{number}")), noise(content, 9_000)).unwrap();
    }
    fs::write(root.join("big"), noise(seed, 900_000)).unwrap();
}

impl Killer {
    fn new() -> Self {
        Self { world: World::new(), random: Random(7), acknowledged: BTreeMap::new() }
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.world.command(&[&["--json"], args].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Kills the child after a random time of at most `most`. Returns its output if it was done
    /// before.
    fn kill_within(&mut self, mut child: Child, most: Duration) -> Option<serde_json::Value> {
        let wait = Duration::from_micros(self.random.below(most.as_micros() as u64));
        std::thread::sleep(wait);
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Checks that every acknowledged version is there, and that every other one is whole or
    /// absent.
    fn check(&mut self) {
        let checked = self.world.run(&["fsck"]);
        assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
        let versions = self.world.run(&["--json", "ls", "p/a"]);
        let listed: serde_json::Value = serde_json::from_str(&versions.out).unwrap_or_default();
        let listed: Vec<String> = listed
            .as_array()
            .map(|all| all.iter().map(|v| v["reference"].as_str().unwrap().to_owned()).collect())
            .unwrap_or_default();
        for (version, seed) in &self.acknowledged {
            assert!(listed.contains(version), "{version} was acknowledged and is not there");
            let out = self.world.path("out");
            let _ = fs::remove_dir_all(&out);
            self.world.ok(&["get", version, "--root", out.to_str().unwrap()]);
            let source = self.world.path("expected");
            fill(&source, *seed);
            crate::world::same_tree(&source, &out);
        }
        let verified = self.world.run(&["verify"]);
        assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    }

    /// Deletes all but the newest two versions, so that checks stay short.
    fn tidy(&mut self) {
        while self.acknowledged.len() > 2 {
            let (version, _) = self.acknowledged.pop_first().unwrap();
            self.world.ok(&["delete", &version, "--delete-aliases"]);
        }
    }

    fn put_is_killed(&mut self, seed: u64) {
        fill(&self.world.path("src"), seed);
        let child = self.start(&["put", "-n", "p/a", "src"]);
        if let Some(told) = self.kill_within(child, Duration::from_millis(60)) {
            self.acknowledged.insert(told["reference"].as_str().unwrap().to_owned(), seed);
        }
    }

    fn delete_is_killed(&mut self) {
        let Some((version, seed)) = self.acknowledged.pop_first() else { return };
        let child = self.start(&["delete", &version, "--delete-aliases"]);
        self.kill_within(child, Duration::from_millis(25));
        // The version is deleted, or still whole.
        if self.world.run(&["show", &version]).code == 0 {
            self.acknowledged.insert(version, seed);
        }
    }

    /// Kills the daemon while a draft is written or committed, or while a put goes through its
    /// socket.
    fn daemon_is_killed(&mut self, seed: u64) {
        let (_, staging) = self.world.mount();
        let daemon = Pid::from_raw(self.world.daemon()).unwrap();
        let draft = staging.join("p/a");
        let through_socket = seed.is_multiple_of(2);
        let child = if through_socket {
            fill(&self.world.path("src"), seed);
            self.start(&["put", "-n", "p/a", "src"])
        } else {
            let _ = fs::create_dir(staging.join("p"));
            fill(&draft, seed);
            self.start(&["commit", "p/a"])
        };
        let wait = Duration::from_micros(self.random.below(60_000));
        std::thread::sleep(wait);
        kill_process(daemon, Signal::KILL).unwrap();
        // A put that loses the daemon opens the registry itself and goes on; a commit ends.
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            self.acknowledged.insert(told["reference"].as_str().unwrap().to_owned(), seed);
        } else {
            assert!(!through_socket, "a put outlives the daemon");
        }
        for name in ["mnt", "staging"] {
            let target = self.world.path(name);
            let _ = std::process::Command::new("umount").arg("-l").arg(&target).output();
        }
        if !through_socket {
            // The draft is as it was: another commit gives its content.
            let told = self.world.json(&["commit", "p/a"]);
            self.acknowledged.insert(told["reference"].as_str().unwrap().to_owned(), seed);
            self.world.ok(&["draft", "discard", "p/a"]);
        }
    }
}

#[test]
fn kills_lose_nothing_acknowledged_and_show_nothing_half_done() {
    let mut killer = Killer::new();
    for seed in 1..=KILLS {
        match seed % 10 {
            0 => killer.daemon_is_killed(seed),
            3 | 6 | 9 => killer.delete_is_killed(),
            _ => killer.put_is_killed(seed),
        }
        killer.check();
        killer.tidy();
    }
    for version in std::mem::take(&mut killer.acknowledged).into_keys() {
        killer.world.ok(&["delete", &version, "--delete-aliases"]);
    }
    // Unacknowledged versions are deleted like any other.
    killer.world.run(&["alias", "rm", "p/a:latest", "latest"]);
    killer.world.run(&["prune", "p"]);
    // The progress of killed puts is kept for a day, so that they can be resumed.
    killer.world.ok(&["gc", "--unfinished"]);
    killer.world.sound();
    assert_eq!(killer.world.json(&["status"])["store_bytes"], 0, "every byte is freed");
}
