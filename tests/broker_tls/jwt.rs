//! An operator, an account and a user of NATS, as `nsc` makes them: JWTs that each signs for the next
//! (<https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt>).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::common::sender::now_s;

pub struct Operator {
    operator: KeyPair,
    account: KeyPair,
    /// The account of the server itself, which JetStream wants.
    system: KeyPair,
}

impl Operator {
    pub fn new() -> Operator {
        Operator {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            system: KeyPair::new_account(),
        }
    }

    /// The server's configuration: it knows the operator, and holds its account.
    pub fn configuration(&self) -> String {
        let operator = self.operator.public_key();
        let [account, system] = [&self.account, &self.system].map(KeyPair::public_key);
        let operators = json!({ "type": "operator", "version": 2 });
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1,
            "consumer": -1,
        });
        let accounts = json!({ "type": "account", "version": 2, "limits": limits });
        let systems = json!({ "type": "account", "version": 2 });
        format!(
            "operator: {}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {account}: {}, {system}: {} }}\n",
            jwt(&self.operator, &operator, operators, None),
            jwt(&self.operator, &account, accounts, None),
            jwt(&self.operator, &system, systems, None),
        )
    }

    /// A user's `.creds` file.
    pub fn creds(&self, expires_s: Option<u64>) -> String {
        let user = KeyPair::new_user();
        let claims = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {},
        });
        let jwt = jwt(&self.account, &user.public_key(), claims, expires_s);
        let seed = user.seed().expect("a seed");
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

fn jwt(issuer: &KeyPair, subject: &str, nats: Value, expires_s: Option<u64>) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let mut claims = json!({
        "jti": subject, "iat": now_s(), "iss": issuer.public_key(), "name": "waypost tests",
        "sub": subject, "nats": nats,
    });
    if let Some(expires_s) = expires_s {
        claims["exp"] = expires_s.into();
    }
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
