//! Encrypted connections: the client checks the certificate of the server.

use std::fs;
use std::process::Command;

use artifactfs::error::Kind;
use artifactfs::registry::engine::postgres::{Address, PostgresTable};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::server::Server;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn a_server_is_known_by_its_certificate() {
    let server = Server::start("");
    let (authority, other) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let data = server.data();
    fs::write(data.join("server.crt"), certificate.pem()).unwrap();
    fs::write(data.join("server.key"), key.serialize_pem()).unwrap();
    let (ca, wrong) = (server.dir.path().join("ca.pem"), server.dir.path().join("other.pem"));
    fs::write(&ca, authority.pem()).unwrap();
    fs::write(&wrong, other.pem()).unwrap();
    let connect = |host: &str, root: &std::path::Path| {
        let text = format!(
            "postgres://postgres@{host}:{}/postgres?schema=t&sslrootcert={}",
            server.port,
            root.display()
        );
        PostgresTable::init(&text.parse::<Address>().unwrap()).map(drop)
    };
    // The server does not offer TLS yet.
    assert_eq!(connect("localhost", &ca).unwrap_err().kind(), Kind::Denied);
    let files = ["server.crt", "server.key"].map(|name| data.join(name));
    assert!(Command::new("chown").arg("postgres:").args(&files).status().unwrap().success());
    assert!(Command::new("chmod").arg("600").args(&files).status().unwrap().success());
    server.sql("alter system set ssl = on");
    server.sql("select pg_reload_conf()");
    let start = std::time::Instant::now();
    while server.sql("show ssl") != "on" {
        assert!(start.elapsed().as_secs() < 30, "TLS is not on");
    }
    for (host, root, what) in
        [("localhost", &wrong, "another authority"), ("127.0.0.1", &ca, "another name")]
    {
        let error = connect(host, root).unwrap_err();
        assert!(error.message().contains("certificate"), "{what}: {error}");
    }
    connect("localhost", &ca).unwrap();
}
