//! Tests of each call with each role and visibility: no reply distinguishes a hidden project from an
//! absent one.

use std::collections::BTreeSet;

use super::*;
use crate::model::access::Visibility;
use crate::model::digest::Digest;
use crate::model::name::{GroupName, RunId, SweepId, VersionNumber};
use crate::model::object::{Extent, NewObject, PackId};
use crate::model::object_kind::ObjectKind;
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::run::{Goal, Resume, RunLog, RunStart, RunState, SweepInfo};
use crate::model::version::Totals;
use crate::registry::prelude::*;
use crate::registry::{
    AliasChange, ArtifactUpdate, CommitRequest, Detail, GroupsCall, Judged, LeasesCall, NamesCall,
    NewKey, NewPart, RunsCall, SealRequest, Update, UpkeepCall, VersionsCall,
};

/// Rights that are looked up each time.
struct Looked<'a>(&'a EngineRegistry, Principal);

impl Rights for Looked<'_> {
    fn principal(&self) -> &Principal {
        &self.1
    }

    fn is_zoned(&self) -> Result<bool> {
        Access::is_zoned(self.0)
    }

    fn level(&self, project: &ProjectName) -> Result<Level> {
        Ok(Access::project_access(self.0, project.clone())?.level(&self.1))
    }

    fn project_of_zone(&self, zone: Zone) -> Result<Option<ProjectName>> {
        Access::project_of_zone(self.0, zone)
    }

    fn project_of_run(&self, run: &RunId) -> Result<Option<ProjectName>> {
        Ok(Runs::run(self.0, run.clone()).ok().map(|run| run.start.project))
    }

    fn project_of_sweep(&self, sweep: &SweepId) -> Result<Option<ProjectName>> {
        Ok(Runs::sweep(self.0, sweep.clone()).ok().map(|sweep| sweep.project))
    }
}

/// The names of one of each thing in a project, which need not exist.
struct Things {
    path: ArtifactPath,
    lease: LeaseId,
    pack: PackId,
    root: Digest,
    run: RunId,
    sweep: SweepId,
}

fn principal(role: Role) -> Principal {
    Principal { user: "ann".parse().unwrap(), role, limit: Role::Admin, projects: Vec::new() }
}

fn registry() -> EngineRegistry {
    let engine = Box::new(MemoryEngine::default());
    let registry = EngineRegistry::open(engine, Arc::new(|| Timestamp(1))).unwrap();
    assert!(Upkeep::make_zoned(&registry).unwrap());
    registry
}

fn start(things: &Things) -> RunStart {
    RunStart {
        id: things.run.clone(),
        project: things.path.project.clone(),
        name: None,
        group: None,
        job_type: None,
        sweep: None,
        config: Default::default(),
        holder: None,
        command: Vec::new(),
        token: 1,
    }
}

fn sweep(things: &Things) -> SweepInfo {
    SweepInfo {
        id: things.sweep.clone(),
        project: things.path.project.clone(),
        metric: "loss".to_owned(),
        goal: Goal::Minimize,
        config: Default::default(),
        created: Timestamp(0),
    }
}

fn plain(things: &Things) -> CommitRequest {
    CommitRequest::plain(things.path.clone(), things.root)
}

/// Returns the names for a project. `zone` is the zone of the project if it exists.
fn things(project: &str, zone: Zone) -> Things {
    let seed = project.as_bytes();
    Things {
        path: format!("{project}/a").parse().unwrap(),
        lease: LeaseId::new(zone, 1_000 + u64::from(seed[0])),
        pack: PackId::new(u128::from(seed[0]), zone),
        root: Digest::of(ObjectKind::Tree, seed).in_zone(zone),
        run: format!("run-{project}").parse().unwrap(),
        sweep: format!("sweep-{project}").parse().unwrap(),
    }
}

/// Fills a project with one of each.
fn fill(registry: &EngineRegistry, project: &str, visibility: Visibility) -> Things {
    let name: ProjectName = project.parse().unwrap();
    let access = Access::set_visibility(registry, name.clone(), visibility).unwrap();
    let mut made = things(project, access.zone.unwrap());
    made.lease = Leases::begin(registry, "put".into(), project.into(), Some(name)).unwrap().lease;
    assert_eq!(made.lease.zone(), made.pack.zone());
    Objects::register_pack(registry, made.lease, made.pack).unwrap();
    let object = NewObject {
        digest: made.root,
        kind: ObjectKind::Tree,
        codec: 0,
        body_bytes: 1,
        offset: 0,
        stored_bytes: 1,
        children: Vec::new(),
    };
    Objects::add_objects(registry, made.lease, made.pack, 1, vec![object]).unwrap();
    Runs::begin_run(registry, start(&made), Resume::Never).unwrap();
    Runs::create_sweep(registry, sweep(&made)).unwrap();
    let mut commit = plain(&made);
    commit.version.run = Some(made.run.clone());
    Versions::commit(registry, made.lease, commit).unwrap();
    Groups::add_part(registry, open_lease(registry, &made), part(&made)).unwrap();
    made
}

fn open_lease(registry: &EngineRegistry, made: &Things) -> LeaseId {
    let project = Some(made.path.project.clone());
    Leases::begin(registry, "part".into(), "part".into(), project).unwrap().lease
}

fn part(of: &Things) -> NewPart {
    NewPart {
        path: of.path.clone(),
        group: "g".parse().unwrap(),
        artifact_type: None,
        root: of.root,
        totals: Totals::default(),
        writer: "w".into(),
        run: None,
        seen: None,
    }
}

/// Returns every call about these things, with the right that it needs.
fn calls(of: &Things) -> Vec<(Need, Call)> {
    let with = |need, calls: Vec<Call>| calls.into_iter().map(move |call| (need, call));
    let reads = with(Need::Read, reads_of_names(of)).chain(with(Need::Read, reads_of_runs(of)));
    let writes = with(Need::Write, writes_of_content(of));
    let writes = writes.chain(with(Need::Write, writes_of_runs(of)));
    let writes = writes.chain(with(Need::Write, writes_of_names(of)));
    reads.chain(writes).chain(with(Need::Admin, of_admins(of))).collect()
}

const LIMIT: u32 = 10;
const NUMBER: VersionNumber = VersionNumber(0);

impl Things {
    fn project(&self) -> ProjectName {
        self.path.project.clone()
    }

    fn path(&self) -> ArtifactPath {
        self.path.clone()
    }

    fn reference(&self) -> Reference {
        format!("{}:v0", self.path).parse().unwrap()
    }

    fn judged(&self) -> Judged {
        Judged { lease: self.lease, holder: self.path.project.to_string(), dead: true }
    }
}

fn group() -> GroupName {
    "g".parse().unwrap()
}

fn reads_of_names(of: &Things) -> Vec<Call> {
    let detail = Detail::Full;
    vec![
        NamesCall::HasProject { project: of.project() }.into(),
        NamesCall::Artifacts { project: of.project(), after: None, limit: LIMIT }.into(),
        NamesCall::FindArtifact { path: of.path() }.into(),
        NamesCall::Lookup { reference: of.reference() }.into(),
        VersionsCall::Versions { path: of.path(), after: None, limit: LIMIT, detail }.into(),
        ObjectsCall::LocateObjects { digests: vec![of.root] }.into(),
        ObjectsCall::FindPack { pack: of.pack }.into(),
        GroupsCall::FindGroup { path: of.path(), group: group(), wanted: None }.into(),
        GroupsCall::FindOpenGroup { path: of.path(), group: group() }.into(),
        GroupsCall::OpenGroups { path: Some(of.path()), after: None, limit: LIMIT }.into(),
        GroupsCall::Parts { path: of.path(), group: group(), after: 0, limit: LIMIT }.into(),
        AccessCall::FindProjectAccess { project: of.project() }.into(),
    ]
}

fn reads_of_runs(of: &Things) -> Vec<Call> {
    let run = || of.run.clone();
    vec![
        RunsCall::FindRun { id: run() }.into(),
        RunsCall::Runs { project: of.project(), after: None, limit: LIMIT }.into(),
        RunsCall::Rows { id: run(), from: 0, limit: LIMIT }.into(),
        RunsCall::Edges { id: run(), logged: true, after: None, limit: LIMIT }.into(),
        RunsCall::Logger { path: of.path(), number: NUMBER }.into(),
        RunsCall::Users { path: of.path(), number: NUMBER, after: None, limit: LIMIT }.into(),
        RunsCall::FindSweep { id: of.sweep.clone() }.into(),
        RunsCall::Sweeps { project: of.project(), after: None, limit: LIMIT }.into(),
        RunsCall::RunsOfSweep { id: of.sweep.clone(), after: None, limit: LIMIT }.into(),
    ]
}

fn writes_of_content(of: &Things) -> Vec<Call> {
    let (lease, pack) = (of.lease, of.pack);
    let extent = Extent { pack, offset: 0, stored_bytes: 1 };
    let (purpose, holder) = ("p".to_owned(), "h".to_owned());
    let seal = SealRequest { group: group(), parts: 1, last: 1, commit: plain(of) };
    vec![
        ObjectsCall::Missing { lease, digests: vec![of.root] }.into(),
        ObjectsCall::RegisterPack { lease, pack }.into(),
        ObjectsCall::AddObjects { lease, pack, length_bytes: 1, objects: vec![] }.into(),
        ObjectsCall::Doubt { found: vec![(of.root, extent)] }.into(),
        LeasesCall::Begin { purpose, holder, project: Some(of.project()) }.into(),
        LeasesCall::Adopt { lease, judged: of.judged() }.into(),
        LeasesCall::Renew { lease }.into(),
        VersionsCall::Commit { lease, request: plain(of) }.into(),
        GroupsCall::AddPart { lease, part: part(of) }.into(),
        GroupsCall::SealGroup { lease, request: seal }.into(),
        LeasesCall::Leave { lease }.into(),
        LeasesCall::EndLease { judged: of.judged(), wholly: false }.into(),
        LeasesCall::Release { lease }.into(),
    ]
}

fn writes_of_runs(of: &Things) -> Vec<Call> {
    let id = || of.run.clone();
    let (state, exit_code) = (RunState::Finished, None);
    vec![
        RunsCall::Heartbeat { id: id() }.into(),
        RunsCall::Log { id: id(), log: RunLog::default() }.into(),
        RunsCall::LookupForRun { id: id(), reference: of.reference() }.into(),
        RunsCall::AddUse { id: id(), path: of.path(), number: NUMBER, alias: None }.into(),
        RunsCall::CrashRun { id: id(), holder: "h".into() }.into(),
        RunsCall::EndRun { id: id(), state, exit_code }.into(),
        RunsCall::RemoveRun { id: id() }.into(),
        RunsCall::BeginRun { start: start(of), resume: Resume::Allow }.into(),
        RunsCall::CreateSweep { sweep: sweep(of) }.into(),
    ]
}

fn writes_of_names(of: &Things) -> Vec<Call> {
    let (change, also_protected) = (AliasChange::Add(vec![]), false);
    vec![
        NamesCall::UpdateArtifact { path: of.path(), update: ArtifactUpdate::default() }.into(),
        NamesCall::ChangeAliases { reference: of.reference(), change, also_protected }.into(),
        VersionsCall::UpdateVersion { reference: of.reference(), update: Update::default() }.into(),
        VersionsCall::Expire { path: of.path(), number: NUMBER }.into(),
        GroupsCall::DiscardGroup { path: of.path(), group: group(), last: 0 }.into(),
        VersionsCall::Delete { reference: of.reference(), delete_aliases: true }.into(),
    ]
}

fn of_admins(of: &Things) -> Vec<Call> {
    let user = "ann".parse().unwrap();
    vec![
        AccessCall::SetVisibility { project: of.project(), visibility: Visibility::Open }.into(),
        AccessCall::SetMember { project: of.project(), user, role: None }.into(),
    ]
}

/// Returns the calls that are about no single project.
fn calls_of_each() -> Vec<Call> {
    vec![
        NamesCall::Projects {}.into(),
        NamesCall::ChangesAfter { after: 0, wait_milliseconds: 0 }.into(),
        LeasesCall::Leases {}.into(),
        GroupsCall::OpenGroups { path: None, after: None, limit: 10 }.into(),
        AccessCall::ZonedProjects { after: None, limit: 10 }.into(),
    ]
}

/// The calls that are about the team, or about nothing that anybody keeps from others.
const OF_TEAM: [&str; 13] = [
    "now",
    "time_to_expire",
    "info",
    "absent",
    "add_account",
    "accounts",
    "change_account",
    "add_key",
    "keys",
    "remove_key",
    "authenticate",
    "is_zoned",
    "project_of_zone",
];

/// Returns the names of the calls that a subject declares.
fn declared(subject: &str) -> impl Iterator<Item = &str> {
    let calls = subject.lines().filter(|line| line.ends_with(';') && line.contains(") -> "));
    calls.filter_map(|line| Some(line.strip_prefix("    ")?.split_once(" = ")?.0))
}

#[test]
fn no_call_is_left_out_here() {
    let subjects = [
        include_str!("../names/mod.rs"),
        include_str!("../versions/mod.rs"),
        include_str!("../objects/mod.rs"),
        include_str!("../leases/mod.rs"),
        include_str!("../runs/mod.rs"),
        include_str!("../groups/mod.rs"),
        include_str!("../access/mod.rs"),
    ];
    let listed = calls(&things("p", Zone::WHOLE)).into_iter().map(|(_, call)| call);
    let listed = listed.chain(calls_of_each()).map(|call| call.name());
    let listed: BTreeSet<_> = listed.collect();
    let mut count = 0;
    for name in subjects.into_iter().flat_map(declared) {
        assert!(listed.contains(name) || OF_TEAM.contains(&name), "{name} is not tried");
        count += 1;
    }
    assert_eq!(count, listed.len() + OF_TEAM.len());
}

fn make(rights: &Looked<'_>, call: Call) -> Result<Vec<u8>> {
    answer(rights, rights.0, call, |call| dispatch(rights.0, call))
}

/// Returns a reply as a caller sees it, without the names and numbers that the caller gave.
fn seen(reply: &Result<Vec<u8>>, things: &Things) -> String {
    let text = match reply {
        Ok(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Err(e) => format!("{:?} {} {:?}", e.kind(), e.message(), e.hints()),
    };
    let project = things.path.project.as_str();
    text.replace(project, "PROJECT").replace(&format!("lease {}", things.lease.0), "LEASE")
}

#[test]
fn a_project_that_may_not_be_seen_is_like_one_that_is_not_there() {
    let member = |role| Principal { user: "bob".parse().unwrap(), ..principal(role) };
    let scoped = Principal { projects: vec!["other".parse().unwrap()], ..principal(Role::Writer) };
    let callers = [principal(Role::Guest), member(Role::Reader), principal(Role::Writer), scoped];
    for caller in callers {
        let registry = registry();
        let hidden = fill(&registry, "hidden", Visibility::Private);
        let nothing = things("zzzzzz", Zone::new(9).unwrap());
        let rights = Looked(&registry, caller.clone());
        let before = Names::lookup(&registry, "hidden/a:v0".parse().unwrap()).unwrap();
        let mut pairs: Vec<_> = calls(&hidden).into_iter().zip(calls(&nothing)).collect();
        pairs.sort_by_key(|((_, call), _)| scope::makes(call));
        for ((need, one), (_, other)) in pairs {
            let (name, makes) = (one.name(), scope::makes(&one));
            let (one, other) = (make(&rights, one), make(&rights, other));
            // A writer may make a project; nothing else differs.
            if makes && caller.role == Role::Writer {
                assert_eq!(one.unwrap_err().kind(), Kind::Denied, "{name}");
            } else {
                let seen = (seen(&one, &hidden), seen(&other, &nothing));
                assert_eq!(seen.0, seen.1, "{name} {need:?} {:?}", caller.role);
            }
        }
        let after = Names::lookup(&registry, "hidden/a:v0".parse().unwrap()).unwrap();
        assert_eq!(before, after, "nothing was changed");
        for call in calls_of_each() {
            let name = call.name();
            let reply = make(&rights, call).unwrap();
            let told = String::from_utf8_lossy(&reply).contains("hidden");
            assert!(!told, "{name} tells a {:?}", caller.role);
        }
    }
}

/// A version, part or run may name only runs and sweeps that its writer sees.
#[test]
fn runs_and_sweeps_that_may_not_be_seen_are_not_named() {
    let registry = registry();
    let hidden = fill(&registry, "hidden", Visibility::Private);
    let own = fill(&registry, "own", Visibility::Team);
    let rights = Looked(&registry, principal(Role::Writer));
    let nothing = things("zzzzzz", Zone::new(9).unwrap());
    let lease = open_lease(&registry, &own);
    let replies = |of: &Things| {
        let mut commit = plain(&own);
        commit.version.run = Some(of.run.clone());
        let part = NewPart { run: Some(of.run.clone()), ..part(&own) };
        let id = format!("new-{}", of.run).parse().unwrap();
        let start = RunStart { id, sweep: Some(of.sweep.clone()), ..start(&own) };
        let calls: [Call; 3] = [
            VersionsCall::Commit { lease, request: commit }.into(),
            GroupsCall::AddPart { lease, part }.into(),
            RunsCall::BeginRun { start, resume: Resume::Never }.into(),
        ];
        calls.map(|call| seen(&make(&rights, call), of))
    };
    assert_eq!(replies(&hidden), replies(&nothing));
    assert!(replies(&nothing).iter().all(|reply| reply.starts_with("NotFound no ")));
}

#[test]
fn each_call_needs_the_right_that_it_needs() {
    for (need, index) in calls(&things("p", Zone::WHOLE)).iter().map(|(need, _)| *need).zip(0..) {
        for visibility in Visibility::ALL {
            for role in Role::ALL {
                let registry = registry();
                let made = fill(&registry, "p", visibility);
                let rights = Looked(&registry, principal(role));
                let (_, call) = calls(&made).swap_remove(index);
                let name = call.name();
                let level = rights.level(&made.path.project).unwrap();
                let verdict = judge(&rights, &call).unwrap();
                // These are narrowed to nothing instead.
                let narrowed = ["locate", "doubt"].contains(&name);
                let allowed = verdict == Verdict::Allowed;
                assert_eq!(allowed, narrowed || level.suffices(need), "{name} {visibility} {role}");
            }
        }
    }
}

fn add_key(user: &str, role: Option<Role>, projects: &[&str]) -> Call {
    let digest = Digest::from_bytes([1; 32]);
    let (user, note) = (user.parse().unwrap(), String::new());
    let projects = projects.iter().map(|name| name.parse().unwrap()).collect();
    AccessCall::AddKey {
        key: NewKey { digest, user, role, projects, note, life_milliseconds: None },
    }
    .into()
}

#[test]
fn a_key_never_allows_more_than_the_key_that_made_it() {
    for (asked, given) in
        [(None, Role::Reader), (Some(Role::Admin), Role::Reader), (Some(Role::Guest), Role::Guest)]
    {
        let key = Principal { limit: Role::Reader, ..principal(Role::Admin) };
        let mut call = add_key("ann", asked, &[]);
        assert!(narrow_to_own_keys(&key, &mut call));
        let Call::Access(AccessCall::AddKey { key }) = call else { panic!() };
        assert_eq!(key.role, Some(given));
    }
    let key = Principal { projects: vec!["p".parse().unwrap()], ..principal(Role::Admin) };
    let mut call = add_key("ann", None, &[]);
    assert!(narrow_to_own_keys(&key, &mut call));
    let Call::Access(AccessCall::AddKey { key: made }) = call else { panic!() };
    assert_eq!(made.projects, key.projects);
    let registry = registry();
    let rights = Looked(&registry, key);
    for call in [add_key("ann", None, &["p", "q"]), add_key("bob", None, &["p"])] {
        assert_eq!(make(&rights, call).unwrap_err().kind(), Kind::Denied);
    }
}

#[test]
fn who_is_no_admin_lists_and_revokes_own_keys_only() {
    let mut call = AccessCall::Keys { user: None }.into();
    assert!(narrow_to_own_keys(&principal(Role::Writer), &mut call));
    assert!(
        matches!(call, Call::Access(AccessCall::Keys { user: Some(user) }) if user.as_str() == "ann")
    );
    let registry = registry();
    let others = AccessCall::Keys { user: Some("bob".parse().unwrap()) };
    assert!(make(&Looked(&registry, principal(Role::Writer)), others.into()).is_err());
    let mut call = AccessCall::RemoveKey { id: "0123456789ab".parse().unwrap(), user: None }.into();
    assert!(narrow_to_own_keys(&principal(Role::Reader), &mut call));
    assert!(matches!(call, Call::Access(AccessCall::RemoveKey { user: Some(_), .. })));
}

#[test]
fn nobody_does_upkeep_over_a_network() {
    let registry = registry();
    for role in Role::ALL {
        let digest = Digest::from_bytes([1; 32]);
        for call in [
            Call::from(UpkeepCall::FindMaintenance {}),
            AccessCall::Authenticate { digest }.into(),
            AccessCall::ProjectOfZone { zone: Zone::WHOLE }.into(),
        ] {
            assert!(make(&Looked(&registry, principal(role)), call).is_err());
        }
    }
}
