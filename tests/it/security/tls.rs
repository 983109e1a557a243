//! Brokers that demand TLS, and a certificate of the client.

use super::authority::Authority;
use super::{is_kept_out, is_let_in};
use crate::harness::nats::NatsServer;
use crate::harness::node;

/// A folder with two authorities, and certificates of both.
fn folder() -> tempfile::TempDir {
    let folder = node::folder();
    let authority = Authority::new(folder.path(), "authority");
    for (name, until) in [("server", 2999), ("late", 2021), ("client", 2999)] {
        authority.sign(name, until);
    }
    Authority::new(folder.path(), "stranger").sign("imposter", 2999);
    folder
}

/// The lines that name these files.
fn lines(server: &NatsServer, files: &[(&str, &str)]) -> String {
    files
        .iter()
        .map(|(key, file)| format!("{key} = {:?}\n", server.folder().join(file)))
        .collect()
}

const CA: (&str, &str) = ("ca_file", "authority.pem");
const CERTIFICATE: (&str, &str) = ("cert_file", "client.pem");
const KEY: (&str, &str) = ("key_file", "client.key");

#[test]
fn a_certificate_of_the_server_is_checked() {
    let server = NatsServer::in_folder(
        folder(),
        "tls { cert_file: 'FOLDER/server.pem', key_file: 'FOLDER/server.key' }",
    );
    let (url, by_name) = (server.url(), server.url().replace("127.0.0.1", "localhost"));
    is_let_in(&url, &lines(&server, &[CA]));
    is_let_in(&url.replace("nats:", "tls:"), &lines(&server, &[CA]));
    let stranger = lines(&server, &[("ca_file", "stranger.pem")]);
    is_kept_out(
        &url,
        &stranger,
        "the authority that nats.ca_file names",
        &[],
    );
    is_kept_out(
        &url,
        "",
        "name the file of the one that has signed it in nats.ca_file",
        &[],
    );
    is_kept_out(
        &by_name,
        &lines(&server, &[CA]),
        "write in nats.urls one that it holds",
        &[],
    );
}

#[test]
fn a_certificate_that_has_expired_is_named_so() {
    let server = NatsServer::in_folder(
        folder(),
        "tls { cert_file: 'FOLDER/late.pem', key_file: 'FOLDER/late.key' }",
    );
    is_kept_out(&server.url(), &lines(&server, &[CA]), "has expired", &[]);
}

#[test]
fn a_server_that_wants_a_certificate_gets_the_right_one() {
    let server = NatsServer::in_folder(
        folder(),
        "tls { cert_file: 'FOLDER/server.pem', key_file: 'FOLDER/server.key', ca_file: 'FOLDER/authority.pem', verify: true }",
    );
    let url = server.url();
    is_let_in(&url, &lines(&server, &[CA, CERTIFICATE, KEY]));
    is_kept_out(
        &url,
        &lines(&server, &[CA]),
        "set nats.cert_file and nats.key_file",
        &[],
    );
    let imposter = [
        CA,
        ("cert_file", "imposter.pem"),
        ("key_file", "imposter.key"),
    ];
    is_kept_out(
        &url,
        &lines(&server, &imposter),
        "the certificate that nats.cert_file names",
        &[],
    );
    let mixed = [CA, CERTIFICATE, ("key_file", "imposter.key")];
    is_kept_out(
        &url,
        &lines(&server, &mixed),
        "check nats.ca_file, nats.cert_file and nats.key_file",
        &[],
    );
}

#[test]
fn who_names_an_authority_never_speaks_in_clear() {
    let server = NatsServer::in_folder(
        folder(),
        "authorization { user: ada, password: lovelace-1815 }",
    );
    let login = "user_name = \"ada\"\nuser_password = \"lovelace-1815\"\n";
    is_kept_out(
        &server.url(),
        &format!("{login}{}", lines(&server, &[CA])),
        "a server that speaks TLS",
        &["lovelace-1815"],
    );
    // The server has not seen it either.
    assert!(!server.log().contains("lovelace-1815"), "{}", server.log());
}
