//! Hints in the words of the command line: verbs and flags.

use artifactfs::error::{
    AccessHint, DamageHint, DraftHint, GetHint, Hint, Maintenance, MountHint, NamesHint, PutHint,
    RepositoryHint, RunHint, StoreHint,
};

/// Returns one line of advice.
pub fn text(hint: &Hint) -> String {
    match hint {
        Hint::Text(text) => text.clone().into_owned(),
        Hint::Names(hint) => names(hint),
        Hint::Repository(hint) => repository(hint),
        Hint::Damage(hint) => damage(hint).to_owned(),
        Hint::Put(hint) => put(hint),
        Hint::Draft(hint) => draft(hint),
        Hint::Get(hint) => get(hint).to_owned(),
        Hint::Run(hint) => run(hint),
        Hint::Store(hint) => store(hint),
        Hint::Mount(hint) => mount(hint),
        Hint::Access(hint) => access(hint),
    }
}

fn names(hint: &NamesHint) -> String {
    match hint {
        NamesHint::List => "`artifactfs ls` lists what there is".to_owned(),
        NamesHint::ListVersions(path) => format!("`artifactfs ls {path}` lists its versions"),
        NamesHint::FindAlias(path) => {
            format!("`artifactfs ls {path}` shows which version has it")
        }
        NamesHint::MoveProtected { path, name } => {
            format!("`artifactfs alias add --protected {path}:VERSION {name}` moves it anyway")
        }
        NamesHint::Unprotect { path, name } => {
            format!("`artifactfs alias unprotect {path} {name}` allows it")
        }
        NamesHint::ListArtifacts(project) => {
            format!("`artifactfs ls {project}` lists its artifacts")
        }
        NamesHint::ListFiles(version) => format!("`artifactfs ls {version}` lists its files"),
        NamesHint::DeleteAliases => "--delete-aliases deletes its aliases too".to_owned(),
    }
}

fn repository(hint: &RepositoryHint) -> String {
    let fixed = match hint {
        RepositoryHint::Init(root) => return format!("`artifactfs init {root}` makes one"),
        RepositoryHint::AwaitMaintenance(work) => {
            let verb = match work {
                Maintenance::Repair => "fsck --repair",
                Maintenance::Rebuild => "fsck --rebuild",
                Maintenance::CopyStore => "copy-store",
            };
            return format!(
                "try again when that has ended; if it was interrupted, run `artifactfs {verb}` again"
            );
        }
        RepositoryHint::Locate => "say where it is with --repo DIR",
        RepositoryHint::ListenElsewhere => "choose another --metrics-listen",
        RepositoryHint::TrustClock => {
            "nothing expired; if the clock is right, say so with --trust-clock"
        }
        RepositoryHint::SharedStore => {
            "with --registry, say --store s3://, gs:// or az://…, or the absolute path of a directory that all hosts have"
        }
        RepositoryHint::MakeShared => {
            "is the address right? `artifactfs init DIR --registry URL --store URL` makes a new registry"
        }
        RepositoryHint::Zoned => {
            "make a new repository with `artifactfs serve init` before the first put, or with \
             `artifactfs init --registry`, and copy what is needed with `get` and `put`"
        }
        RepositoryHint::CopyFiles => {
            "copy the files themselves (cp --reflink=never), or `get` and `put` them"
        }
        RepositoryHint::AwaitCopy => "try again when `artifactfs copy-store` has ended",
    };
    fixed.to_owned()
}

fn access(hint: &AccessHint) -> String {
    let fixed = match hint {
        AccessHint::SignIn(url) => return format!("`artifactfs login {url} < KEYFILE` signs in"),
        AccessHint::ListUsers => "`artifactfs user ls` lists the users",
        AccessHint::ListKeys => "`artifactfs key ls` lists the keys",
        AccessHint::MakeKey => "`artifactfs key create --user NAME` makes another key",
        AccessHint::RevokeKeys => "`artifactfs key revoke ID` ends one that is not used any more",
        AccessHint::MakeAdmin => {
            "`artifactfs serve init --repo DIR --admin NAME` makes the first user"
        }
        AccessHint::RunAtServer => {
            "run it on the server (--repo DIR), or on a host that opens registry and store itself"
        }
        AccessHint::ListenElsewhere => "choose another --listen",
        AccessHint::NameTeam => {
            "a repository is served under the name of its directory: move it to one with such a name, \
             or make it with `artifactfs init --name TEAM`"
        }
        AccessHint::Encrypt => {
            "give --tls-cert and --tls-key, listen on 127.0.0.1 behind a proxy, or say --insecure-http"
        }
    };
    fixed.to_owned()
}

fn damage(hint: &DamageHint) -> &'static str {
    match hint {
        DamageHint::Verify => "`artifactfs verify` names the damaged files and versions",
        DamageHint::VerifyAndPut => {
            "`artifactfs verify` names the damaged files and versions; `artifactfs put` of a good copy mends them"
        }
        DamageHint::VerifyAndDelete => {
            "`artifactfs verify` names the damaged versions; delete them, then copy again"
        }
        DamageHint::PutGoodCopy => {
            "`artifactfs put` a good copy of the files it belongs to: that mends every version that needs it"
        }
        DamageHint::Check => "`artifactfs fsck` shows more",
        DamageHint::Repair => "`artifactfs fsck --repair` mends it",
        DamageHint::Rebuild => "`artifactfs fsck --rebuild` makes the object table again",
        DamageHint::FinishRebuild => "`artifactfs fsck --rebuild` finishes the swap",
        DamageHint::CollectGarbage => "`artifactfs gc` tries again",
    }
}

fn put(hint: &PutHint) -> String {
    let fixed = match hint {
        PutHint::ExcludeOrRename(name) => {
            return format!("rename it, or leave it out with --exclude {name}");
        }
        PutHint::ListGroups(Some(path)) => {
            return format!("`artifactfs group ls {path}` lists what is open");
        }
        PutHint::ListGroups(None) => "`artifactfs group ls` lists all open groups",
        PutHint::Exclude => "--exclude it",
        PutHint::ExcludeOrFollow => "leave out --no-follow to take what is there, or --exclude it",
        PutHint::ExcludeOrKeepSymlink => "--exclude it, or use --no-follow",
        PutHint::ExcludeOrRemoveSymlink => "remove the symlink, or --exclude it",
        PutHint::ExcludeOrWait => "put it when its writer has finished, or --exclude it",
        PutHint::NameReference => "--reference NAME=URL gives one of them another name",
        PutHint::NameWebReference => {
            "give it one: --reference NAME=URL; a web server's folders cannot be listed"
        }
        PutHint::RecordByLength => {
            "--no-checksum records it by its length alone; or fetch it, and put the file itself"
        }
        PutHint::AllowObjects => "--max-objects allows more; a longer prefix names fewer",
        PutHint::GoOn => {
            "run it again to go on: what is stored already is kept for a day; \
             `artifactfs gc --unfinished` frees it earlier"
        }
        PutHint::LeaveCode => "leave out --save-code",
        PutHint::Upsert => "`artifactfs put --upsert` with the same group begins its next version",
        PutHint::AllowOverwrite => {
            "leave out --no-overwrite to replace it, or put it under another name"
        }
        PutHint::Expect => {
            "see what changed with `artifactfs diff`, then leave out --expect or give another"
        }
    };
    fixed.to_owned()
}

fn draft(hint: &DraftHint) -> String {
    let fixed = match hint {
        DraftHint::CommitOrDiscard(draft) => {
            return format!("commit it, or `artifactfs draft discard {draft}`");
        }
        DraftHint::List => "`artifactfs draft ls` lists the drafts",
        DraftHint::CommitLeniently => {
            "no version can hold that: remove it, or commit without --strict"
        }
        DraftHint::CommitExternalSymlinks => {
            "replace it by what it leads to, or commit with --allow-external-symlinks"
        }
        DraftHint::RestoreRecord => {
            "put the record back, or mount with the release that wrote it; \
             `artifactfs draft discard` throws the draft away"
        }
        DraftHint::ShowStatus => {
            "`artifactfs status` says why; mend that and mount again to change it"
        }
        DraftHint::FindMount => "a repository has one staging mount; `artifactfs status` shows it",
    };
    fixed.to_owned()
}

fn get(hint: &GetHint) -> &'static str {
    match hint {
        GetHint::FetchReferences => "get it without --references-only-links",
        GetHint::ChooseRoot => "remove it, or choose another --root",
        GetHint::WriteOut => "write it to the disk: `artifactfs get`",
        GetHint::WriteOutArray => "`artifactfs get` writes that file out; numpy.load reads it",
        GetHint::CacheDirectory => "see --cache-dir",
        GetHint::EnlargeCache => "give --cache-size more",
    }
}

fn run(hint: &RunHint) -> String {
    let fixed = match hint {
        RunHint::Resume(id) => {
            return format!("go on with it by `artifactfs run --id {id} --resume allow`");
        }
        RunHint::Finish(id) => return format!("`artifactfs run finish {id}` ends it"),
        RunHint::LogSummary(metric) => {
            return format!("`artifactfs run log RUN --summary {metric}=0.93` gives it one");
        }
        RunHint::List => "`artifactfs runs ls PROJECT` lists the runs of a project",
        RunHint::ListSweeps => "`artifactfs sweep ls PROJECT` lists the sweeps of a project",
        RunHint::ResumeOrRename => {
            "--resume allow goes on with a run that has ended; or choose another id"
        }
        RunHint::ResumeOrBegin => "--resume allow begins it if it is not there",
        RunHint::PutInside => "what is put inside `artifactfs run -- …` is logged by that run",
        RunHint::UseSummary => "metrics are numbers; --summary takes any JSON",
        RunHint::UseConfig => "put what is longer in --config",
        RunHint::LeaveSweep => "leave out --sweep",
    };
    fixed.to_owned()
}

fn store(hint: &StoreHint) -> String {
    let fixed = match hint {
        StoreHint::Region(region) => {
            return format!(
                "the bucket is in {region}: set AWS_REGION={region}, or --store-option region={region}"
            );
        }
        StoreHint::Correct => {
            "the store refuses this as it stands: correct its URL, endpoint or --store-option"
        }
        StoreHint::Check => "check the URL, --store-option and the credentials in the environment",
        StoreHint::ServiceAccountFile => {
            "name a file with it: --store-option google_service_account=FILE"
        }
        StoreHint::Options => "credentials come from the environment, options from --store-option",
        StoreHint::LeaveOptions => "leave --store-option out",
    };
    fixed.to_owned()
}

fn mount(hint: &MountHint) -> String {
    match hint {
        MountHint::UnmountLazily => {
            "end what uses it (`fuser -vm` lists them), or unmount with --lazy".to_owned()
        }
        MountHint::UnmountOrChoose(target) => {
            format!("`artifactfs umount {target}`, or choose another")
        }
    }
}
