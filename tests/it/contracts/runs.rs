//! The contract of a registry for runs, under a clock that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use artifactfs::error::Kind;
use artifactfs::model::metadata::Metadata;
use artifactfs::model::name::RunId;
use artifactfs::model::run::{
    Goal, Resume, RunLog, RunStart, RunState, SCRIPT_SILENCE_MILLISECONDS, SILENCE_MILLISECONDS,
    SweepInfo,
};
use artifactfs::model::time::Timestamp;
use artifactfs::registry::EngineRegistry;
use artifactfs::registry::prelude::*;

use crate::fresh_engine;

fn registry() -> (EngineRegistry, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&now);
    let clock = Arc::new(move || Timestamp(clock.load(Ordering::SeqCst)));
    (EngineRegistry::open(fresh_engine(), clock).unwrap(), now)
}

fn start(id: &str, holder: Option<&str>, token: u64) -> RunStart {
    RunStart {
        id: id.parse().unwrap(),
        project: "p".parse().unwrap(),
        name: None,
        group: None,
        job_type: None,
        sweep: None,
        config: Metadata::default(),
        holder: holder.map(str::to_owned),
        command: Vec::new(),
        token,
    }
}

fn id(text: &str) -> RunId {
    text.parse().unwrap()
}

#[test]
fn a_silent_run_counts_as_crashed_until_its_next_call() {
    let (registry, now) = registry();
    registry.begin_run(start("held", Some("host/1/1"), 1), Resume::Never).unwrap();
    registry.begin_run(start("script", None, 2), Resume::Never).unwrap();
    let state = |run: &str| registry.run(id(run)).unwrap().state;
    now.fetch_add(SILENCE_MILLISECONDS, Ordering::SeqCst);
    assert_eq!(state("held"), RunState::Running);
    now.fetch_add(1, Ordering::SeqCst);
    assert_eq!((state("held"), state("script")), (RunState::Crashed, RunState::Running));
    let crashed = registry.run(id("held")).unwrap();
    assert_eq!(crashed.ended, Some(Timestamp(1_000)), "when it was last heard of");
    registry.heartbeat(id("held")).unwrap();
    assert_eq!(state("held"), RunState::Running);
    now.fetch_add(SCRIPT_SILENCE_MILLISECONDS, Ordering::SeqCst);
    assert_eq!(state("script"), RunState::Crashed);
    let runs = registry.runs("p".parse().unwrap(), None, 10).unwrap().items;
    assert!(runs.iter().all(|run| run.state == RunState::Crashed));
    // A run that another process ended as crashed runs again with its next call.
    registry.end_run(id("held"), RunState::Crashed, None).unwrap();
    registry.log(id("held"), RunLog { token: 7, ..RunLog::default() }).unwrap();
    assert_eq!(state("held"), RunState::Running);
}

#[test]
fn repeated_calls_take_effect_once() {
    let (registry, now) = registry();
    let begun = registry.begin_run(start("r", None, 5), Resume::Never).unwrap();
    now.fetch_add(10, Ordering::SeqCst);
    assert_eq!(registry.begin_run(start("r", None, 5), Resume::Never).unwrap(), begun);
    let other = registry.begin_run(start("r", None, 6), Resume::Never).unwrap_err();
    assert_eq!(other.kind(), Kind::Conflict);
    let log = RunLog { metrics: vec![("loss".to_owned(), 0.5)], token: 9, ..RunLog::default() };
    for _ in 0..2 {
        assert_eq!(registry.log(id("r"), log.clone()).unwrap().rows, 1);
    }
    let other = RunLog { token: 10, ..log.clone() };
    assert_eq!(registry.log(id("r"), other).unwrap().rows, 2);
    // The same call again, after another writer has logged.
    assert_eq!(registry.log(id("r"), log).unwrap().rows, 2);
    let rows = registry.rows(id("r"), 1, 10).unwrap().items;
    assert_eq!((rows.len(), rows[0].step), (1, 1));
    for _ in 0..2 {
        let ended = registry.end_run(id("r"), RunState::Failed, Some(3)).unwrap();
        assert_eq!((ended.state, ended.exit_code), (RunState::Failed, Some(3)));
    }
    let again = registry.end_run(id("r"), RunState::Finished, Some(0)).unwrap_err();
    assert_eq!(again.kind(), Kind::Conflict);
    let sweep = SweepInfo {
        id: "s".parse().unwrap(),
        project: "p".parse().unwrap(),
        metric: "a".to_owned(),
        goal: Goal::Minimize,
        config: Metadata::default(),
        created: Timestamp(0),
    };
    let made = registry.create_sweep(sweep.clone()).unwrap();
    now.fetch_add(10, Ordering::SeqCst);
    assert_eq!(registry.create_sweep(sweep.clone()).unwrap(), made);
    let changed = SweepInfo { metric: "b".to_owned(), ..sweep };
    assert_eq!(registry.create_sweep(changed).unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn listings_come_in_pages() {
    let (registry, now) = registry();
    for number in 0..25 {
        registry.begin_run(start(&format!("r{number}"), None, number + 1), Resume::Never).unwrap();
        now.fetch_add(number % 2, Ordering::SeqCst);
    }
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = registry.runs("p".parse().unwrap(), after, 10).unwrap().items;
        let Some(last) = page.last() else { break };
        after = Some((last.created, last.start.id.clone()));
        seen.extend(page.into_iter().map(|run| (run.created, run.start.id)));
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
    registry.end_run(id("r3"), RunState::Finished, Some(0)).unwrap();
    registry.remove_run(id("r3")).unwrap();
    assert_eq!(registry.run(id("r3")).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(registry.runs("p".parse().unwrap(), None, 100).unwrap().items.len(), 24);
}
