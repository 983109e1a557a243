//! Operators, accounts and users of NATS, and what they sign: the JSON web tokens that credentials files hold.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// An operator with one account.
pub struct Operator {
    operator: KeyPair,
    account: KeyPair,
    /// JetStream needs one.
    system: KeyPair,
}

impl Operator {
    pub fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            system: KeyPair::new_account(),
        }
    }

    /// The server's configuration.
    pub fn configuration(&self) -> String {
        let operator = token(
            &self.operator,
            &self.operator,
            json!({"type": "operator"}),
            None,
        );
        let unlimited: Value = [
            "subs",
            "data",
            "payload",
            "imports",
            "exports",
            "conn",
            "leaf",
            "mem_storage",
            "disk_storage",
            "streams",
            "consumer",
        ]
        .into_iter()
        .map(|name| (name.to_owned(), json!(-1)))
        .chain([("wildcards".to_owned(), json!(true))])
        .collect::<serde_json::Map<_, _>>()
        .into();
        let account = json!({"type": "account", "limits": unlimited});
        let account = token(&self.operator, &self.account, account, None);
        let system = json!({"type": "account", "limits": {"subs": -1, "data": -1, "payload": -1, "conn": -1, "imports": -1, "exports": -1, "wildcards": true}});
        let system = token(&self.operator, &self.system, system, None);
        let (key, system_key) = (self.account.public_key(), self.system.public_key());
        format!(
            "operator: {operator}\nsystem_account: {system_key}\nresolver: MEMORY\nresolver_preload: {{ {key}: {account}\n {system_key}: {system} }}"
        )
    }

    /// A credentials file of a new user, valid until then (seconds since 1970), and the user's seed.
    pub fn user(&self, until: Option<u64>) -> (String, String) {
        let user = KeyPair::new_user();
        let claims =
            json!({"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
        let token = token(&self.account, &user, claims, until);
        let seed = user.seed().unwrap();
        let file = format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        (file, seed)
    }
}

fn token(issuer: &KeyPair, subject: &KeyPair, mut claims: Value, until: Option<u64>) -> String {
    claims["version"] = json!(2);
    let mut body = json!({
        "jti": "of a test", "iat": 1_600_000_000, "name": "of a test",
        "iss": issuer.public_key(), "sub": subject.public_key(), "nats": claims,
    });
    if let Some(until) = until {
        body["exp"] = json!(until);
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let signed = format!("{head}.{}", part(&body));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
