//! What a user is told where a store answers "no", through the client library and a real
//! connection.
#![cfg(feature = "aws")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::{Created, ObjectName, Remote, open_url};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::ids::Version;

/// A server that gives the same answer to every request, and counts them.
struct Server {
    endpoint: String,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn new(status: &'static str, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        // Ends with the process.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || answer(connection, status, body, &counted));
            }
        });
        Self { endpoint, requests }
    }

    fn remote(&self) -> Remote {
        remote(&self.endpoint)
    }
}

fn remote(endpoint: &str) -> Remote {
    let options = [
        ("endpoint", endpoint),
        ("allow_http", "true"),
        ("region", "eu-north-1"),
        ("access_key_id", "key"),
        ("secret_access_key", "secret"),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let (store, root) = open_url("s3://bucket/job", options, false).unwrap();
    Remote::new(store, root, Env::default())
}

/// Answers the requests of one connection until it ends.
fn answer(connection: TcpStream, status: &str, body: &str, counted: &AtomicUsize) -> Option<()> {
    let mut writer = connection.try_clone().ok()?;
    let mut reader = BufReader::new(connection);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
        }
        std::io::copy(&mut std::io::Read::take(&mut reader, length), &mut std::io::sink()).ok()?;
        counted.fetch_add(1, Ordering::SeqCst);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body.as_bytes())).ok()?;
    }
}

fn manifest() -> ObjectName {
    ObjectName::manifest(Version(1))
}

/// The error of a listing, of a read and of a create.
async fn refused(remote: &Remote) -> [Error; 3] {
    let Created::Doubt(create) = remote.create(&manifest(), Bytes::from_static(b"x")).await else {
        panic!("it was created")
    };
    [remote.list("").await.unwrap_err(), remote.get(&manifest()).await.unwrap_err(), create]
}

#[tokio::test]
async fn what_the_store_refuses_for_good_is_asked_once_and_says_what_to_set() {
    for (status, code, kind, says) in [
        ("403 Forbidden", "AccessDenied", ErrorKind::StoreUnavailable, "let the credentials list"),
        ("403 Forbidden", "InvalidAccessKeyId", ErrorKind::StoreUnavailable, "AWS_ACCESS_KEY_ID"),
        ("403 Forbidden", "SignatureDoesNotMatch", ErrorKind::StoreUnavailable, "AWS_SECRET_ACCESS_KEY"),
        ("400 Bad Request", "ExpiredToken", ErrorKind::StoreUnavailable, "AWS_SESSION_TOKEN"),
        ("401 Unauthorized", "Unauthorized", ErrorKind::StoreUnavailable, "give valid credentials"),
        ("404 Not Found", "NoSuchBucket", ErrorKind::NotFound, "bucket or container exists"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", ErrorKind::StoreUnavailable, "AWS_REGION"),
    ] {
        let body =
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>It is so.</Message></Error>");
        let server = Server::new(status, body.leak());
        let remote = server.remote();
        for error in refused(&remote).await {
            assert_eq!(error.kind(), kind, "{code}: {error}");
            let text = error.to_string();
            assert!(text.contains(says), "{code}: {text}");
            assert!(text.contains(code) && text.contains("It is so."), "{text}");
            assert!(!text.contains("<?xml"), "{text}");
        }
        assert_eq!(server.requests.load(Ordering::SeqCst), 3, "{code}: nothing was asked again");
        assert_eq!(remote.counters().retries, 0);
    }
}

#[tokio::test]
async fn a_store_without_conditional_creates_is_unsafe() {
    let server = Server::new("501 Not Implemented", "<Error><Code>NotImplemented</Code></Error>");
    let error = server.remote().probe(Version(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeStore, "{error}");
    assert!(error.to_string().contains("If-None-Match"), "{error}");
}

#[tokio::test]
async fn what_is_no_object_store_is_not_taken_for_an_empty_one() {
    let server = Server::new("200 OK", "<html><body>It works!</body></html>");
    let remote = server.remote();
    let error = crate::manifest::read_newest(&remote).await.unwrap_err();
    assert!(error.to_string().contains("no object store: check the endpoint"), "{error}");
    assert_eq!(remote.counters().retries, 0);
}

#[tokio::test]
async fn a_passing_failure_is_tried_again_and_shows_its_cause() {
    let retry = super::RetryPolicy { attempts: 2, ..super::RetryPolicy::default() };
    let server = Server::new("503 Slow Down", "<Error><Code>SlowDown</Code></Error>");
    let error = server.remote().with_retry(retry).list("").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);
    assert!(error.to_string().contains("SlowDown"), "{error}");

    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let remote = remote(&endpoint).with_retry(retry);
    let error = remote.list("").await.unwrap_err();
    assert_eq!((error.kind(), remote.counters().retries), (ErrorKind::StoreUnavailable, 1));
    let text = error.to_string();
    assert!(text.contains("Connection refused") && text.contains("host and port"), "{text}");
    assert_eq!(text.matches("Connection refused").count(), 1, "{text}");
}

/// The client's TLS comes from a feature of a crate that only `object_store` uses.
#[tokio::test]
async fn a_store_behind_https_is_greeted_in_tls() {
    const HANDSHAKE: u8 = 22;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let first_byte = std::thread::spawn(move || {
        let mut byte = [0];
        std::io::Read::read_exact(&mut listener.accept().unwrap().0, &mut byte).unwrap();
        byte[0]
    });
    let once = super::RetryPolicy { attempts: 1, ..super::RetryPolicy::default() };
    let error = remote(&endpoint).with_retry(once).get(&manifest()).await.unwrap_err();
    assert_eq!(first_byte.join().unwrap(), HANDSHAKE, "{error}");
}
