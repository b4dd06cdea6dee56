//! Users, roles and keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::serving::{Server, last_line, sign_in};
use crate::world::until;

#[test]
fn a_role_allows_what_it_allows() {
    let server = Server::start();
    let admin = server.host();
    let source = admin.tree("src", &[("a", b"data")]);
    let source = source.to_str().unwrap();
    admin.ok(&["put", "-n", "p/data", source]);
    let mut reader = server.host_of(&server.user("bob", "reader"));
    let writer = server.host_of(&server.user("eve", "writer"));

    assert_eq!(reader.ok(&["ls", "p/data:latest"]).trim(), "a");
    let (read, staging) = reader.mount();
    assert_eq!(fs::read(read.join("p/data:latest/a")).unwrap(), b"data");
    fs::create_dir_all(staging.join("p/mine")).unwrap();
    fs::write(staging.join("p/mine/x"), "x").unwrap();
    let refused = fs::rename(staging.join("p/mine"), staging.join("p/mine:v")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(13), "{refused}");
    assert_eq!(fs::read(staging.join("p/mine/x")).unwrap(), b"x", "the draft is as it was");
    reader.ok(&["draft", "discard", "p/mine"]);
    for args in [
        &["put", "-n", "p/data", source][..],
        &["alias", "add", "p/data:v0", "best"],
        &["delete", "p/data:v0", "--delete-aliases"],
        &["update", "p/data:v0", "--description", "x"],
        &["run", "-p", "p", "--", "true"],
        &["user", "ls"],
        &["key", "create", "--user", "ann"],
        &["gc"],
    ] {
        let refused = reader.run(args);
        assert_eq!(refused.code, 12, "{args:?}: {}{}", refused.out, refused.err);
    }
    reader.umount();
    writer.ok(&["put", "-n", "p/data", "-a", "best", source]);
    for args in [
        &["user", "create", "mallory"][..],
        &["user", "role", "eve", "admin"],
        &["key", "ls", "--user", "ann"],
        &["gc"],
    ] {
        assert_eq!(writer.run(args).code, 12, "{args:?}");
    }
    admin.ok(&["user", "role", "bob", "writer"]);
    until("the new role counts", || reader.run(&["alias", "add", "p/data:v0", "x"]).code == 0);
    let log = fs::read_to_string(server.world.path("server.log")).unwrap();
    let refused = log.lines().any(|line| {
        line.contains("user=bob") && line.contains("what=\"p") && line.contains("\"Denied\"")
    });
    assert!(refused, "refusals are logged with the project");
    let changed = log.lines().any(|line| {
        line.contains("user=eve") && line.contains("commit") && line.contains("what=\"p/data\"")
    });
    assert!(changed, "changes are logged with what was changed");
    assert!(!log.contains("af-"), "no key is logged");
}

#[test]
fn keys_narrow_expire_and_are_revoked_within_a_second() {
    let server = Server::start();
    let admin = server.host();
    let source = admin.tree("src", &[("a", b"data")]);
    admin.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);

    // A narrow key of a powerful user does not make a wide one.
    let narrow = last_line(&admin.ok(&["key", "create", "--role", "reader", "--note", "ci"]));
    let narrowed = server.host_of(&narrow);
    assert_eq!(narrowed.run(&["alias", "add", "p/data:v0", "x"]).code, 12);
    let child = last_line(&narrowed.ok(&["key", "create"]));
    assert_eq!(server.host_of(&child).run(&["alias", "add", "p/data:v0", "x"]).code, 12);

    let listed = admin.json(&["key", "ls"]);
    let ci = listed.as_array().unwrap().iter().find(|key| key["note"] == "ci").unwrap().clone();
    assert_eq!((&ci["user"], &ci["role"]), (&"ann".into(), &"reader".into()));
    let bob = server.user("bob", "writer");
    let bobs = server.host_of(&bob);
    assert_eq!(bobs.run(&["key", "revoke", ci["id"].as_str().unwrap()]).code, 10);
    admin.ok(&["key", "revoke", ci["id"].as_str().unwrap()]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let refused = narrowed.run(&["ls"]);
    assert_eq!(refused.code, 12, "{}{}", refused.out, refused.err);
    assert!(refused.err.contains("artifactfs login"), "{}", refused.err);

    let short = last_line(&admin.ok(&["key", "create", "--expires", "3s"]));
    let brief = server.host_of(&short);
    until("the key has expired", || brief.run(&["ls"]).code == 12);

    admin.ok(&["user", "disable", "bob"]);
    until("a disabled user is out", || bobs.run(&["ls"]).code == 12);
    admin.ok(&["user", "enable", "bob"]);
    until("an enabled user is in", || bobs.run(&["ls"]).code == 0);

    let last = admin.run(&["user", "disable", "ann"]);
    assert_eq!(last.code, 11, "the only admin stays: {}", last.err);
    assert_eq!(admin.run(&["user", "create", "bob"]).code, 11);
    assert_eq!(admin.run(&["user", "create", "../x"]).code, 3);
    let again = server.world.run(&["serve", "init", "--admin", "eve"]);
    assert_eq!(again.code, 11, "{}", again.err);
}

#[test]
fn a_host_signs_in_and_out() {
    let server = Server::start();
    let host = server.stranger();
    let refused = host.run(&["ls"]);
    assert_eq!(refused.code, 12);
    assert!(refused.err.contains("artifactfs login"), "{}", refused.err);
    assert_eq!(sign_in(&host, &server.origin, "af-nonsense").code, 2);
    let other = format!("af-{}", "A".repeat(43));
    let wrong = sign_in(&host, &server.origin, &other);
    assert!(wrong.code == 12 && !wrong.err.contains(&other), "{}", wrong.err);
    assert_eq!(sign_in(&host, &format!("{}/none", server.origin), &server.admin).code, 12);
    assert_eq!(sign_in(&host, &server.url(), &server.admin).code, 0);
    let file = host.path("home/.config/artifactfs/credentials.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let me = host.json(&["whoami"]);
    assert_eq!(me["user"], "ann");
    assert_eq!(me["repositories"][0]["role"], "admin");
    host.ok(&["ls"]);
    host.ok(&["logout", &server.url()]);
    assert_eq!(host.run(&["ls"]).code, 12);
    assert_eq!(host.run(&["logout", &server.url()]).code, 10);

    // A cluster gives the key as a file.
    let mut mounted = server.stranger();
    fs::write(mounted.path("key"), format!("{}\n", server.admin)).unwrap();
    let key = mounted.path("key").into_os_string();
    mounted.env.push(("ARTIFACTFS_KEY_FILE", key));
    mounted.ok(&["ls"]);

    for url in ["http://ann:af-hunter2@127.0.0.1/repo", "http://127.0.0.1/repo?key=af-hunter2"] {
        let mut leaky = server.stranger();
        leaky.url = Some(url.to_owned());
        let refused = leaky.run(&["ls"]);
        assert!(refused.code == 2 && !refused.err.contains("hunter2"), "{}", refused.err);
    }
}
