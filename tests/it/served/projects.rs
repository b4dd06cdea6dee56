//! The visibility and members of projects, as users meet them.

use std::fs;

use artifactfs::registry::DRAFT_HOLDER;

use crate::serving::{Server, last_line, packs};
use crate::world::{World, host, noise, same_tree, until};

/// Puts a project with one version, and makes it private.
fn secret(admin: &World) {
    admin.ok(&["project", "set", "secret", "--visibility", "private"]);
    let source = admin.tree("src", &[("a", b"hidden"), ("d/b", &noise(9, 300_000))]);
    admin.ok(&["put", "-n", "secret/data", source.to_str().unwrap()]);
}

#[test]
fn a_private_project_is_seen_by_its_members_only() {
    let server = Server::start();
    let admin = server.host();
    secret(&admin);
    let mut writer = server.host_of(&server.user("eve", "writer"));
    let (read, staging) = writer.mount();
    let source = writer.path("src");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("a"), "hidden").unwrap();

    // In each face the project seems absent to a user who is no member.
    assert_eq!(writer.ok(&["ls"]), "");
    assert_eq!(writer.ok(&["project", "ls"]), "");
    for (hidden, absent) in [("secret/data", "nobody/data"), ("secret/data:v0", "nobody/data:v0")] {
        for verb in ["show", "ls", "logged-by", "verify", "prefetch"] {
            let tell = |name: &str| {
                let ran = writer.run(&[verb, name]);
                (ran.code, ran.err.replace("secret", "X").replace("nobody", "X"))
            };
            assert_eq!(tell(hidden), tell(absent), "{verb}");
        }
    }
    assert!(!read.join("secret").exists() && fs::read_dir(&read).unwrap().next().is_none());
    assert!(!staging.join("secret/data:v0").exists());
    assert_eq!(writer.run(&["delete", "secret/data:v0", "--delete-aliases"]).code, 10);
    for args in [
        &["put", "-n", "secret/data", source.to_str().unwrap()][..],
        &["put", "-n", "secret/more", source.to_str().unwrap()],
        &["run", "-p", "secret", "--", "true"],
        &["project", "set", "secret", "--visibility", "open"],
        &["project", "member", "add", "secret", "eve"],
    ] {
        let refused = writer.run(args);
        assert_eq!(refused.code, 12, "{args:?}: {}{}", refused.out, refused.err);
    }

    admin.ok(&["project", "member", "add", "secret", "eve", "--role", "reader"]);
    until("a member sees it", || read.join("secret/data:v0/a").exists());
    same_tree(&admin.path("src"), &read.join("secret/data:v0"));
    assert_eq!(writer.run(&["put", "-n", "secret/data", source.to_str().unwrap()]).code, 12);
    admin.ok(&["project", "member", "add", "secret", "eve", "--role", "writer"]);
    until("a writer writes", || {
        writer.run(&["put", "-n", "secret/data", source.to_str().unwrap()]).code == 0
    });
    assert_eq!(writer.run(&["project", "member", "rm", "secret", "ann"]).code, 12);
    admin.ok(&["project", "member", "add", "secret", "eve", "--role", "admin"]);
    until("an admin of the project changes it", || {
        writer.run(&["project", "set", "secret", "--visibility", "team"]).code == 0
    });

    admin.ok(&["project", "set", "secret", "--visibility", "private"]);
    admin.ok(&["project", "member", "rm", "secret", "eve"]);
    until("who is no member any more sees nothing", || writer.run(&["ls", "secret"]).code == 10);
    writer.umount();
    server.sound();
}

#[test]
fn guests_read_what_is_public_and_write_what_is_open() {
    let server = Server::start();
    let admin = server.host();
    let source = admin.tree("src", &[("a", b"data")]);
    let source = source.to_str().unwrap();
    for visibility in ["private", "team", "public", "open"] {
        admin.ok(&["put", "-n", &format!("{visibility}/data"), source]);
        admin.ok(&["project", "set", visibility, "--visibility", visibility]);
    }
    let guest = server.host_of(&server.user("gus", "guest"));
    let listed = guest.ok(&["project", "ls"]);
    assert!(listed.contains("public") && listed.contains("open"), "{listed}");
    assert!(!listed.contains("private") && !listed.contains("team"), "{listed}");
    for (project, reads, writes) in
        [("private", 10, 12), ("team", 10, 12), ("public", 0, 12), ("open", 0, 0)]
    {
        let name = format!("{project}/data");
        assert_eq!(guest.run(&["ls", &format!("{name}:latest")]).code, reads, "{project}");
        let got = guest.path(&format!("got-{project}"));
        let got = guest.run(&["get", &format!("{name}:v0"), "--root", got.to_str().unwrap()]);
        assert_eq!(got.code, reads, "{project}: {}", got.err);
        let put = guest.run(&["put", "-n", &name, "-a", "x", source]);
        assert_eq!(put.code, writes, "{project}: {}{}", put.out, put.err);
    }
    assert_eq!(guest.run(&["put", "-n", "new/data", source]).code, 12, "a guest makes no project");
    assert!(!guest.ok(&["status"]).contains("pack"), "nor learns what the team has");
    assert!(admin.ok(&["status"]).contains("pack"));
    server.sound();
}

#[test]
fn a_key_for_one_project_opens_no_other() {
    let server = Server::start();
    let admin = server.host();
    let source = admin.tree("src", &[("a", b"data")]);
    let source = source.to_str().unwrap();
    admin.ok(&["put", "-n", "one/data", source]);
    admin.ok(&["put", "-n", "two/data", source]);
    let key = last_line(&admin.ok(&["key", "create", "--project", "one"]));
    let host = server.host_of(&key);
    assert_eq!(host.ok(&["ls"]).split_whitespace().next(), Some("one"));
    host.ok(&["put", "-n", "one/data", "-a", "x", source]);
    assert_eq!(host.run(&["ls", "two"]).code, 10);
    assert_eq!(host.run(&["put", "-n", "two/data", source]).code, 12);
    assert_eq!(host.run(&["user", "ls"]).code, 12);
    let child = server.host_of(&last_line(&host.ok(&["key", "create"])));
    assert_eq!(child.run(&["ls", "two"]).code, 10, "its own keys are as narrow");
    assert_eq!(host.run(&["key", "create", "--project", "two"]).code, 12);
}

#[test]
fn equal_files_in_two_projects_are_two_objects_and_a_copy_reads_and_writes_once() {
    let server = Server::start();
    let admin = server.host();
    let bytes = noise(3, 2_000_000);
    let source = admin.tree("src", &[("a", &bytes), ("small", b"x")]);
    admin.ok(&["put", "-n", "one/data", source.to_str().unwrap()]);
    let mut other = server.host();
    let (read, staging) = other.mount();

    // Within a project a copy stores nothing; into another it stores the bytes.
    for (project, stores) in [("one", false), ("two", true)] {
        let before = packs(&server);
        let draft = staging.join(project).join("copy");
        fs::create_dir_all(&draft).unwrap();
        // Within one mount the kernel lets the daemon copy.
        let from = staging.join("one/data:v0");
        host("cp", &[&from.join("a"), &draft]);
        host("cp", &[&from.join("small"), &draft]);
        fs::rename(&draft, staging.join(project).join("copy:made")).unwrap();
        same_tree(&from, &read.join(project).join("copy:made"));
        // A refused clone leaves no lease behind.
        let leases = server.world.open().registry.leases().unwrap();
        assert!(leases.iter().all(|lease| lease.holder != DRAFT_HOLDER), "{project}: {leases:?}");
        assert_eq!(packs(&server) > before, stores, "{project}");
    }
    let diff = admin.run(&["diff", "one/data:v0", "two/copy:v0"]);
    assert_eq!(diff.code, 0, "{}", diff.out);
    // Deleting in one leaves the other whole.
    admin.ok(&["delete", "one/data:v0", "--delete-aliases"]);
    admin.ok(&["delete", "one/copy:v0", "--delete-aliases"]);
    same_tree(&source, &read.join("two/copy:made"));
    admin.ok(&["verify"]);
    // A link of a file into another project would share bytes.
    fs::create_dir_all(staging.join("three/x")).unwrap();
    let linked = fs::hard_link(staging.join("two/copy:v0/a"), staging.join("three/x/a"));
    assert_eq!(linked.unwrap_err().raw_os_error(), Some(libc::EXDEV));
    other.umount();
    server.sound();
}

#[test]
fn a_repository_that_was_used_before_it_had_users_is_one_zone() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"data")]);
    world.ok(&["put", "-n", "old/data", source.to_str().unwrap()]);
    let server = Server::of(world, &[]);
    let settings = || fs::read_to_string(server.world.repo().join("repository.json")).unwrap();
    assert!(!settings().contains("\"format\": 3"), "older releases may open it as before");
    let admin = server.host();
    let refused = admin.run(&["project", "set", "old", "--visibility", "private"]);
    assert!(refused.code == 15 && refused.err.contains("share bytes"), "{}", refused.err);
    assert_eq!(admin.run(&["key", "create", "--project", "old"]).code, 15);
    assert!(admin.ok(&["project", "ls"]).contains("team"));
    let writer = server.host_of(&server.user("eve", "writer"));
    writer.ok(&["put", "-n", "new/data", source.to_str().unwrap()]);
    assert_eq!(writer.ok(&["ls", "old/data:v0"]).trim(), "a");
    assert_eq!(server.host_of(&server.user("gus", "guest")).ok(&["ls"]), "");
    server.sound();
}
