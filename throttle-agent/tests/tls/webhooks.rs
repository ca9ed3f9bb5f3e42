//! Webhooks of https: told where the receiver is who it should be, and lost where it is not.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, mpsc},
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};
use serde_json::{Value, json};

use crate::{
    authority::Authority,
    support::{Host, Running, privileged, wait_for},
};

/// A backend at which nobody listens.
const POLICY: &str = "\
[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\nhealth = { control = \"fixed\" }\n\
[[backend]]\nname = \"web-1\"\nservice = \"web\"\naddress = \"127.0.0.1:80\"\nprobe = \"tcp\"\n";

/// A receiver on a host that shows its certificate for `localhost`: its port, and the bodies that come.
fn listen(host: &Host, authority: &Authority) -> (u16, mpsc::Receiver<Value>) {
    let (chain, key) = authority.certificate("localhost");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = host.within(|| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let (told, heard) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let (mut text, mut buffer) = (String::new(), [0; 4096]);
            // A client that refuses the certificate says so and ends.
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                text += &String::from_utf8_lossy(&buffer[..length]);
                let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
                let Some(body) = body else { continue };
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
                if told.send(body).is_err() {
                    return;
                }
                text.clear();
            }
        }
    });
    (port, heard)
}

/// An agent that tells a receiver, whom it trusts by the word of an authority.
fn agent(host: &Host, url: &str, authority: &Authority) -> Running {
    let mut options = host.options();
    options.webhooks = vec![url.parse().unwrap()];
    options.webhook_authority = Some(authority.file("authority.crt"));
    let agent = host.agent_with(options);
    agent.post("/v1/policy/apply", &json!({"toml": POLICY})).ok();
    agent
}

#[test]
fn a_webhook_is_told_over_https() {
    if !privileged() {
        return;
    }
    let Some(authority) = Authority::new("localhost") else { return };
    let host = Host::new();
    let (port, heard) = listen(&host, &authority);
    let agent = agent(&host, &format!("https://localhost:{port}/hook"), &authority);
    let mut told = Vec::new();
    wait_for("word of the death", || {
        told.extend(heard.try_iter());
        told.iter().any(|it| it["kind"] == "backend" && it["to"] == "dead" && it["backend"] == "web-1")
    });
    let status = agent.get("/v1/status").ok();
    assert_eq!(status["health_notices_lost"], 0, "{status}");
    assert!(!status["problems"].to_string().contains("webhook"), "{status}");
}

#[test]
fn a_receiver_of_another_authority_or_name_is_told_nothing_and_what_is_lost_is_counted() {
    if !privileged() {
        return;
    }
    let Some(authority) = Authority::new("localhost") else { return };
    let Some(other) = Authority::new("localhost") else { return };
    for (url, trusted) in [("https://localhost", &other), ("https://127.0.0.1", &authority)] {
        let host = Host::new();
        let (port, heard) = listen(&host, &authority);
        let agent = agent(&host, &format!("{url}:{port}/hook"), trusted);
        wait_for("the loss", || agent.get("/v1/status").ok()["health_notices_lost"].as_u64() > Some(0));
        wait_for("the fault", || {
            agent.get("/v1/status").ok()["problems"].to_string().contains("it is not trusted; --webhook-authority")
        });
        assert_eq!(heard.try_iter().count(), 0);
    }
}
