//! Stores that do not answer: the user sees what is waited for, can end it, and hears what to do.
#![allow(clippy::unwrap_used)]
#![cfg(all(unix, feature = "aws"))]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use crate::run::{alluvium, fails, interruptible, path};

/// Answers every request with what `answer` says; None: never.
fn store(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            match answer {
                None => kept.push(stream),
                Some(answer) => drop(std::thread::spawn(move || reply(stream, answer))),
            }
        }
    });
    endpoint
}

/// Reads a request's head, and answers.
fn reply(mut stream: TcpStream, answer: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let _ = stream.write_all(answer.as_bytes());
}

/// The options of a store at this endpoint.
fn at<'a>(endpoint: &'a str, command: &[&'a str]) -> Vec<String> {
    let endpoint = format!("endpoint={endpoint}");
    let options = ["allow_http=true", "access_key_id=x", "secret_access_key=x", "region=x", &endpoint];
    let options = options.iter().flat_map(|option| ["--store-option", option]);
    command.iter().copied().chain(options).map(str::to_owned).collect()
}

/// Every command that asks a store first.
fn commands(dir: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["inspect", "s3://bucket/job"],
        vec!["load", "s3://bucket/job", "--keys", "10"],
        vec!["load", "s3://bucket/job", "--resume"],
        vec!["compare", "s3://bucket/job", "--keys", "10"],
        vec!["restore-test", "s3://bucket/job", "--dir", dir],
        vec!["savepoint", "list", "s3://bucket/job"],
        vec!["pin", "list", "s3://bucket/job"],
        vec!["get", "s3://bucket/job", "state", "key"],
        vec!["scan", "s3://bucket/job", "state", "--no-pin"],
        vec!["export", "s3://bucket/job"],
        vec!["state", "list", "s3://bucket/job"],
    ]
}

#[test]
fn first_contact_gives_up_and_names_the_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (endpoint, restored) = (store(None), path(dir.path(), "restored"));
    for words in commands(&restored) {
        let output =
            alluvium(&[&at(&endpoint, &words)[..], &["--contact-timeout".into(), "100ms".into()]].concat());
        fails(&output, 1, "the store is s3://bucket/job");
        fails(&output, 1, &endpoint);
        fails(&output, 1, "has not answered once");
    }
}

#[test]
fn a_wait_is_shown_and_a_signal_ends_it() {
    let endpoint = store(None);
    for (words, signal) in [("inspect", "INT"), ("load", "TERM"), ("load", "HUP")] {
        let all: &[&str] = match words {
            "load" => &["load", "s3://bucket/job"],
            _ => &["inspect", "s3://bucket/job"],
        };
        let args = [&at(&endpoint, all)[..], &["--contact-timeout".into(), "1h".into()]].concat();
        let mut child = interruptible(&args).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("waiting for s3://bucket/job at http://127.0.0.1"), "{line}");
        crate::run::signal(&child, signal);
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("interrupted while waiting for s3://bucket/job"), "{rest}");
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
}

#[test]
fn answers_say_what_to_set() {
    const CASES: [(&str, &str); 6] = [
        (
            "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n<Error><Code>InvalidAccessKeyId</Code></Error>",
            "AWS_ACCESS_KEY_ID",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n<Error><Code>SignatureDoesNotMatch</Code></Error>",
            "AWS_SECRET_ACCESS_KEY",
        ),
        ("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n", "credentials"),
        (
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n<Error><Code>NoSuchBucket</Code></Error>",
            "bucket",
        ),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html><body>Welcome</body></html>", "no object store"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n<html/>", "no object store"),
    ];
    for (answer, says) in CASES {
        let endpoint = store(Some(answer));
        for words in [&["inspect", "s3://bucket/job"][..], &["load", "s3://bucket/job"]] {
            fails(&alluvium(&at(&endpoint, words)), 1, says);
        }
    }
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    fails(&alluvium(&at(&nobody, &["inspect", "s3://bucket/job"])), 1, "nothing listens there");
}

#[test]
fn a_url_without_a_bucket_says_so() {
    for url in ["s3://", "s3:///job"] {
        fails(&alluvium(&["inspect", url]), 2, "names no bucket or container");
    }
}
