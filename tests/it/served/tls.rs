//! HTTPS: the client checks the server's certificate, and the server reads a new one.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::serving::{Server, sign_in, signal};
use crate::world::{noise, until};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate for localhost, and its key.
fn certify(authority: &Authority, folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
}

#[test]
fn bytes_and_calls_are_encrypted_and_a_new_certificate_is_read() {
    let (first, second) = (authority(), authority());
    let world = crate::fresh_repository();
    let folder = world.dir.path().to_owned();
    certify(&first, &folder);
    fs::write(folder.join("first.pem"), first.pem()).unwrap();
    fs::write(folder.join("second.pem"), second.pem()).unwrap();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let server = Server::of(
        world,
        &["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()],
    );
    assert!(server.origin.starts_with("https://localhost:"));
    let trusting = |name: &str| {
        let mut host = server.stranger();
        host.env.push(("SSL_CERT_FILE", folder.join(name).into_os_string()));
        host
    };
    let (mut host, wary) = (trusting("first.pem"), trusting("second.pem"));
    let refused = sign_in(&wary, &server.origin, &server.admin);
    assert!(refused.code == 12 && refused.err.contains("SSL_CERT_FILE"), "{}", refused.err);
    assert_eq!(sign_in(&host, &server.origin, &server.admin).code, 0);
    let source = host.tree("src", &[("a", &noise(1, 2_000_000))]);
    host.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);
    let (read, _) = host.mount();
    assert_eq!(fs::read(read.join("p/data:latest/a")).unwrap(), noise(1, 2_000_000));
    host.umount();

    certify(&second, &folder);
    signal(server.child.id(), "HUP");
    until("the new certificate is served", || {
        sign_in(&wary, &server.origin, &server.admin).code == 0
    });
    wary.ok(&["ls", "p/data:latest"]);
    // One that cannot be used changes nothing.
    fs::write(&cert, "nonsense").unwrap();
    signal(server.child.id(), "HUP");
    wary.ok(&["ls", "p/data:latest"]);
}

#[test]
fn plain_http_is_for_this_machine_unless_it_is_requested() {
    let world = crate::fresh_repository();
    world.ok(&["serve", "init", "--admin", "ann"]);
    let refused = world.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(refused.code == 2 && refused.err.contains("--insecure-http"), "{}", refused.err);
    let refused = world.run(&["serve", "--tls-cert", "/none", "--tls-key", "/none"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
}
