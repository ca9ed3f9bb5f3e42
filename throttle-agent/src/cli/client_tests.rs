use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    thread,
};

use super::*;

/// A client of something that hears one request and answers it with these bytes.
fn answering(answer: &'static str) -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        head.take_while(|line| !line.is_empty()).for_each(drop);
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let client = Client::new(&socket).unwrap();
    (dir, client)
}

#[test]
fn names_and_queries_are_escaped() {
    assert_eq!(under("/v1/limits", "a b/ü"), "/v1/limits/a%20b%2F%C3%BC");
    let fields = serde_json::json!({"message": "why & how", "session": null, "force": false});
    assert_eq!(query("/x", &fields).unwrap(), "/x?force=false&message=why%20%26%20how");
    assert_eq!(query("/x", &serde_json::json!({"revision": null})).unwrap(), "/x");
}

#[test]
fn an_absent_agent_is_named_with_its_remedy() {
    let client = Client::new(Path::new("/nonexistent/api.sock")).unwrap();
    let Err(failure @ Failure::Unreachable { .. }) = client.get("/v1/status") else { panic!("nobody is there") };
    assert!(failure.to_string().contains("/nonexistent/api.sock"));
    assert!(failure.to_string().contains("throttle run"));
}

#[test]
fn an_answer_comes_as_it_was_sent() {
    let (_dir, client) = answering("HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"prefix\":[]}");
    assert_eq!(client.get("/v1/x").unwrap().text(), "{\"prefix\":[]}");
}

#[test]
fn a_problem_is_the_agents_own_words() {
    let (_dir, client) = answering(concat!(
        "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n",
        r#"{"type":"/problems/not-found","title":"There is no such thing","status":404,"detail":"no limit `x`"}"#
    ));
    let Err(failure @ Failure::Refused { .. }) = client.get("/v1/x") else { panic!("404 is a refusal") };
    assert_eq!(failure.to_string(), "no limit `x`");
}

#[test]
fn lines_are_whole_however_they_arrive() {
    let (_dir, client) =
        answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\na\nb\r\n4\r\nb\nc\n\r\n0\r\n\r\n");
    let mut seen = Vec::new();
    let each = |line: &str| {
        seen.push(line.to_owned());
        Ok(())
    };
    client.lines("/v1/events", each).unwrap();
    assert_eq!(seen, ["a", "bb", "c"]);
}

/// A client, in a hurry, of something that hears and never answers.
fn unheard() -> (tempfile::TempDir, UnixListener, Client) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let client = Client { patience: [Duration::from_millis(50); 2], ..Client::new(&socket).unwrap() };
    (dir, listener, client)
}

#[test]
fn a_look_that_is_not_answered_in_time_says_nothing_of_changes() {
    let (_dir, _listener, client) = unheard();
    let Err(failure @ Failure::Silent { wrote: false, .. }) = client.get("/v1/status") else { panic!("no answer") };
    let text = failure.to_string();
    assert!(text.starts_with("no answer within 0.05 s from the agent at ") && !text.contains("change"), "{text}");
}

#[test]
fn a_change_that_is_not_answered_in_time_is_unknown_and_says_how_to_find_out() {
    let (_dir, _listener, client) = unheard();
    let failure = client.put("/v1/mode", &serde_json::json!({})).unwrap_err();
    assert!(matches!(failure, Failure::Silent { wrote: true, .. }));
    let text = failure.to_string();
    assert!(text.contains("is unknown") && text.contains("throttle policy history"), "{text}");
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let (_dir, client) = answering("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"re");
    let failure = client.delete("/v1/limits/web").unwrap_err();
    assert!(matches!(failure, Failure::Silent { wrote: true, .. }), "{failure}");
}
