//! Reads an object store's answer beyond its kind: the HTTP status, and the code and message in its
//! body. Client libraries keep them in the text of their errors, often under "generic", so they are
//! parsed from there.

use std::fmt;

use crate::error::ErrorKind;

/// What may be done after a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The store answered: such an object exists already.
    Exists,
    /// The store answered: there is no such object.
    Absent,
    /// It may go better next time. A write may or may not have been applied.
    Passing,
    /// It will not go better by itself.
    Lasting,
}

/// An answer, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answer {
    status: Option<u16>,
    /// Such as `AccessDenied`; stores agree on most of them.
    code: Option<String>,
    message: Option<String>,
}

/// The consequence of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) verdict: Verdict,
    pub(super) kind: ErrorKind,
    pub(super) advice: &'static str,
}

const PERMISSION: &str = "let the credentials list, read, create and delete below the job's prefix";
const CREDENTIALS: &str = "give valid credentials, in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for \
    S3) or as store options";
const KEY: &str = "the store does not know this access key: set AWS_ACCESS_KEY_ID or the store option \
    aws_access_key_id, and check the endpoint";
const SECRET: &str = "the secret does not belong to the access key: set AWS_SECRET_ACCESS_KEY or the store option \
    aws_secret_access_key";
const TOKEN: &str = "the session token is not valid any more: set a new AWS_SESSION_TOKEN with the key and the secret \
    that came with it";
const CLOCK: &str = "set this machine's clock";
const BUCKET: &str = "check that the bucket or container exists, and its name in the URL";
const REGION: &str = "set AWS_REGION, or the store option aws_region, to the region of the bucket";
const ACCOUNT: &str = "the key or signature does not belong to the account: check AZURE_STORAGE_ACCOUNT_NAME and \
    AZURE_STORAGE_ACCOUNT_KEY, or the store options account_name and account_key";
/// The metadata services of the three clouds have the same address; their paths differ.
const METADATA: [(&str, &str); 3] = [
    (
        "/computeMetadata/",
        "no credentials are set, so the machine's metadata service was asked for some: set \
        GOOGLE_SERVICE_ACCOUNT to the path of a service account's key file, or give the machine a service account",
    ),
    (
        "/metadata/identity/",
        "no credentials are set, so the machine's metadata service was asked for some: set \
        AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or give the machine a managed identity",
    ),
    (
        "/latest",
        "no credentials are set, so the machine's metadata service was asked for some: set AWS_ACCESS_KEY_ID and \
        AWS_SECRET_ACCESS_KEY, or give the machine a role",
    ),
];
const METADATA_HOSTS: [&str; 3] = ["169.254.169.254", "fd00:ec2::254", "/computeMetadata/"];
const NO_CONDITION: &str =
    "use a store that can create an object on condition that it is absent (If-None-Match)";
const NO_STORE: &str = "what answers at this address is no object store of this kind: check the endpoint";
const CERTIFICATE: &str = "let its certificate be trusted: name a file with the certificate of its issuer in the \
    environment variable SSL_CERT_FILE, and check the host in the endpoint";
const PLAIN: &str = "for an endpoint without TLS set the store option allow_http to true (AWS_ALLOW_HTTP, \
    AZURE_ALLOW_HTTP)";
const REFUSED: &str = "nothing listens there: see whether the store is running, and check host and port of the \
    endpoint";
const HOST: &str = "check the host in the endpoint and this machine's network";

const fn lasting(kind: ErrorKind, advice: &'static str) -> Meaning {
    Meaning { verdict: Verdict::Lasting, kind, advice }
}

const fn passing(advice: &'static str) -> Meaning {
    Meaning { verdict: Verdict::Passing, kind: ErrorKind::StoreUnavailable, advice }
}

impl Answer {
    /// Reads the text of an error with all its causes.
    pub(super) fn read(text: &str) -> Self {
        let status = text.split_once("status code: ").map(|(_, rest)| rest);
        let status = status.and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse().ok());
        Self { status, code: element(text, "Code"), message: element(text, "Message") }
    }

    /// Whether a server has answered at all, be it that it is busy.
    pub(super) fn has_status(&self) -> bool {
        self.status.is_some()
    }

    /// What the code says; None for one that says no more than the status.
    fn by_code(&self) -> Option<Meaning> {
        let unavailable = |advice| Some(lasting(ErrorKind::StoreUnavailable, advice));
        match self.code.as_deref()? {
            "AccessDenied"
            | "AllAccessDisabled"
            | "AuthorizationFailure"
            | "AuthorizationPermissionMismatch" => unavailable(PERMISSION),
            "InvalidAccessKeyId" => unavailable(KEY),
            "SignatureDoesNotMatch" => unavailable(SECRET),
            "AuthenticationFailed" => unavailable(ACCOUNT),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => unavailable(TOKEN),
            "RequestTimeTooSkewed" => unavailable(CLOCK),
            "NoSuchBucket" | "ContainerNotFound" => Some(lasting(ErrorKind::NotFound, BUCKET)),
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException"
            | "IncorrectEndpoint" => unavailable(REGION),
            _ => None,
        }
    }

    /// The meaning of the answer to a request. `text` is the whole text of the error. None: the
    /// error's kind decides.
    pub(super) fn meaning(&self, creating: bool, text: &str) -> Option<Meaning> {
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let unavailable = |advice| Some(lasting(ErrorKind::StoreUnavailable, advice));
        if says(&METADATA_HOSTS) {
            let of_cloud = METADATA.iter().find(|(path, _)| text.contains(path));
            let advice = of_cloud.map_or(CREDENTIALS, |(_, advice)| advice);
            // A slow metadata service may still answer. If it answers "no", there are no
            // credentials.
            return Some(match self.status {
                Some(401..=404) => lasting(ErrorKind::StoreUnavailable, advice),
                _ => passing(advice),
            });
        }
        if let Some(meaning) = self.by_code() {
            return Some(meaning);
        }
        match self.status {
            Some(401) => return unavailable(CREDENTIALS),
            Some(403) => return unavailable(PERMISSION),
            Some(501) if creating => return Some(lasting(ErrorKind::UnsafeStore, NO_CONDITION)),
            Some(501) => return unavailable(NO_STORE),
            Some(_) => return None,
            None => {}
        }
        if says(&["redirect without LOCATION"]) {
            unavailable(REGION)
        } else if says(&["invalid peer certificate", "certificate verify failed", "UnknownIssuer"]) {
            unavailable(CERTIFICATE)
        } else if says(&["URL scheme is not allowed"]) {
            unavailable(PLAIN)
        } else if says(&[
            "Got invalid",
            "Unable to extract metadata from headers",
            "Header missing from response",
        ]) {
            unavailable(NO_STORE)
        } else if says(&["Connection refused"]) {
            Some(passing(REFUSED))
        } else if says(&["dns error", "failed to lookup address", "Name or service not known"]) {
            Some(passing(HOST))
        } else {
            None
        }
    }

    /// Whether the answer says more to a person than the whole text of the error.
    pub(super) fn is_telling(&self) -> bool {
        self.status.is_some() && self.code.is_some()
    }
}

/// The text of the first XML element of this name.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    // A store may say whatever it likes.
    (!content.is_empty() && content.len() <= 1000)
        .then(|| content.split_whitespace().collect::<Vec<_>>().join(" "))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store answers")?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        match &self.message {
            Some(message) => write!(f, " ({message})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Answer {}

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: &str = "Generic S3 error: Error performing list request: Error performing GET \
        http://h/b?prefix=x in 1ms - Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\
        <Error><Code>AccessDenied</Code><Message>Access\n  Denied.</Message><HostId>x</HostId></Error>";

    #[test]
    fn answers_are_read_from_the_text_of_errors() {
        let answer = Answer::read(DENIED);
        assert_eq!(answer.to_string(), "the store answers 403 AccessDenied (Access Denied.)");
        assert!(answer.is_telling());
        for text in [
            "",
            "status code: ",
            "status code: 40",
            "status code: abc",
            "<Code>",
            "<Code></Code>",
            "é status code: é1",
        ] {
            assert_eq!(Answer::read(text), Answer::default(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_helped_by_waiting_is_told_from_what_can() {
        let meaning = |text: &str| Answer::read(text).meaning(false, text);
        for (text, verdict, says) in [
            (DENIED, Verdict::Lasting, "let the credentials list"),
            (
                "status code: 403 Forbidden: <Code>InvalidAccessKeyId</Code>",
                Verdict::Lasting,
                "AWS_ACCESS_KEY_ID",
            ),
            (
                "status code: 403 Forbidden: <Code>SignatureDoesNotMatch</Code>",
                Verdict::Lasting,
                "AWS_SECRET_ACCESS_KEY",
            ),
            (
                "status code: 400 Bad Request: <Code>ExpiredToken</Code>",
                Verdict::Lasting,
                "AWS_SESSION_TOKEN",
            ),
            ("status code: 403 Forbidden: <Code>RequestTimeTooSkewed</Code>", Verdict::Lasting, "clock"),
            ("status code: 404 Not Found: <Code>NoSuchBucket</Code>", Verdict::Lasting, "bucket"),
            ("status code: 401 Unauthorized: ", Verdict::Lasting, "credentials"),
            ("status code: 400: <Code>AuthorizationHeaderMalformed</Code>", Verdict::Lasting, "AWS_REGION"),
            (
                "HTTP error: error sending request: invalid peer certificate: UnknownIssuer",
                Verdict::Lasting,
                "SSL_CERT_FILE",
            ),
            ("builder error: URL scheme is not allowed", Verdict::Lasting, "AWS_ALLOW_HTTP"),
            ("Got invalid list response: expected x", Verdict::Lasting, "endpoint"),
            (
                "GET http://169.254.169.254/latest - status code: 403 Forbidden",
                Verdict::Lasting,
                "AWS_ACCESS_KEY_ID",
            ),
            (
                "GET http://169.254.169.254/latest - error sending request",
                Verdict::Passing,
                "AWS_ACCESS_KEY_ID",
            ),
            (
                "Generic GCS error: GET http://metadata.google.internal/computeMetadata/v1/instance/\
                service-accounts/default/token - error sending request: dns error",
                Verdict::Passing,
                "GOOGLE_SERVICE_ACCOUNT",
            ),
            (
                "GET http://169.254.169.254/computeMetadata/v1 - status code: 404 Not Found",
                Verdict::Lasting,
                "GOOGLE_SERVICE_ACCOUNT",
            ),
            (
                "GET http://169.254.169.254/metadata/identity/oauth2/token?x - error sending request",
                Verdict::Passing,
                "AZURE_STORAGE_ACCOUNT_KEY",
            ),
            (
                "status code: 403 Forbidden: <Code>AuthenticationFailed</Code>",
                Verdict::Lasting,
                "AZURE_STORAGE_ACCOUNT_KEY",
            ),
            ("tcp connect error: Connection refused (os error 111)", Verdict::Passing, "port"),
            ("dns error: failed to lookup address information", Verdict::Passing, "host"),
        ] {
            let meaning = meaning(text).unwrap();
            assert_eq!(meaning.verdict, verdict, "{text}");
            assert!(meaning.advice.contains(says), "{text}: {}", meaning.advice);
        }
        for text in [
            "status code: 503 Slow Down: <Code>SlowDown</Code>",
            "status code: 500: <Code>InternalError</Code>",
            "status code: 400: <Code>RequestTimeout</Code>",
            "status code: 404: <Code>NoSuchKey</Code>",
            "error sending request: connection reset",
        ] {
            assert_eq!(meaning(text), None, "{text}");
        }
        let text = "status code: 501 Not Implemented: <Code>NotImplemented</Code>";
        assert_eq!(Answer::read(text).meaning(true, text).unwrap().kind, ErrorKind::UnsafeStore);
        assert_eq!(meaning(text).unwrap().kind, ErrorKind::StoreUnavailable);
    }
}
