use super::*;
use crate::error::ErrorKind;

fn open(url: &str) -> Result<StoreAndRoot> {
    open_url(url, [], false)
}

fn refused(url: &str, kind: ErrorKind, says: &str) {
    let error = open(url).unwrap_err();
    assert_eq!(error.kind(), kind, "{url}: {error}");
    assert!(error.to_string().contains(says), "{url}: {error}");
}

#[test]
fn a_directory_is_created_only_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a b/ü#1/job");
    let file = Url::from_file_path(&deep).unwrap();
    for url in [deep.to_str().unwrap(), file.as_str()] {
        refused(url, ErrorKind::NotFound, "does not exist");
        assert!(!dir.path().join("a b").exists());
    }
    open_url(file.as_str(), [], true).unwrap();
    assert!(deep.is_dir());
    open(deep.to_str().unwrap()).unwrap();
    // A second time, and with parts that exist.
    open_url(deep.to_str().unwrap(), [], true).unwrap();
    open_url(dir.path().join("other").to_str().unwrap(), [], true).unwrap();
    open(".").unwrap();

    let plain = dir.path().join("file");
    std::fs::write(&plain, "").unwrap();
    refused(plain.to_str().unwrap(), ErrorKind::InvalidArgument, "not a directory");
}

#[tokio::test]
async fn url_and_path_lead_to_the_same_place() {
    use object_store::ObjectStoreExt;

    let dir = tempfile::tempdir().unwrap();
    let (store, root) = open_url(dir.path().join("x y").to_str().unwrap(), [], true).unwrap();
    store.put(&root.join("object"), "content".into()).await.unwrap();
    let url = Url::from_file_path(dir.path().join("x y")).unwrap();
    assert!(url.as_str().contains("x%20y"));
    let (store, root) = open(url.as_str()).unwrap();
    assert_eq!(store.get(&root.join("object")).await.unwrap().bytes().await.unwrap(), "content");
}

#[tokio::test]
async fn named_memory_is_shared_and_the_nameless_is_not() {
    use object_store::ObjectStoreExt;

    for (url, shared) in [("memory://a-test-of-urls/p", true), ("memory:///p", false)] {
        let (store, root) = open(url).unwrap();
        assert_eq!(root, Path::from("p"));
        store.put(&root.clone().join("x"), "content".into()).await.unwrap();
        assert_eq!(open(url).unwrap().0.head(&root.join("x")).await.is_ok(), shared, "{url}");
    }
    open("memory://").unwrap();
}

#[test]
fn places_in_one_cloud_store_are_known_as_such() {
    let option = |value: &str| vec![("region".to_owned(), value.to_owned())];
    let one = cloud_store_id("s3://bucket/a", &option("x"));
    assert!(one.is_some());
    assert_eq!(cloud_store_id("s3://bucket/b/c", &option("x")), one);
    for (url, options) in
        [("s3://other/a", option("x")), ("gs://bucket/a", option("x")), ("s3://bucket/a", option("y"))]
    {
        assert_ne!(cloud_store_id(url, &options), one, "{url}");
    }
    for url in ["memory://name/a", "file:///a", "/a", "", "a b:c"] {
        assert_eq!(cloud_store_id(url, &[]), None, "{url}");
    }
}

#[test]
fn mistyped_urls_are_refused_with_a_reason() {
    use ErrorKind::InvalidArgument as Invalid;

    refused("", Invalid, "empty");
    refused("~/job", Invalid, "~");
    refused("s4://bucket/job", Invalid, "s4://");
    refused("hdfs://host/job", Invalid, "s3://");
    refused("s3:/bucket/job", Invalid, "neither a URL nor a path");
    refused("C:\\jobs", Invalid, "neither a URL nor a path");
    refused("file://relative/path", Invalid, "\"relative\"");
    refused("file://./path", Invalid, "file:///");
    refused("file:///path?x=1", Invalid, "query");
    refused("s3://bucket/a#b", Invalid, "fragment");
    refused("https://example.com/job", Invalid, "web server");
    refused("://", Invalid, "cannot be read");
    refused("s3://", Invalid, "");

    let error = open("s3://user:secret@bucket/job").unwrap_err().to_string();
    assert!(!error.contains("secret") && error.contains("password"), "{error}");
    for local in ["/tmp", "memory://"] {
        let error = open_url(local, [("region".to_string(), "x".to_string())], false).unwrap_err();
        assert!(error.to_string().contains("region"), "{error}");
    }
}

#[cfg(not(feature = "aws"))]
#[test]
fn a_missing_feature_is_named() {
    refused("s3://bucket/job", ErrorKind::InvalidArgument, "cargo feature `aws`");
}

#[cfg(feature = "aws")]
#[test]
fn s3_is_set_up_from_url_and_options() {
    let option = |key: &str, value: &str| (key.to_string(), value.to_string());
    let options = [
        option("region", "eu-north-1"),
        option("endpoint", "http://localhost:1"),
        option("Allow_HTTP", "true"),
    ];
    let (store, root) = open_url("s3://bucket/some/job/", options, false).unwrap();
    assert!(store.to_string().contains("bucket"), "{store}");
    assert_eq!(root, Path::from("some/job"));
    let plain = [option("region", "x"), option("endpoint", "http://localhost:1")];
    let error = open_url("s3://bucket/job", plain, false).unwrap_err();
    assert!(error.to_string().contains("allow_http"), "{error}");
    let error = open_url("s3://bucket/job", [option("regoin", "x")], false).unwrap_err();
    assert!(error.to_string().contains("regoin"), "{error}");
}

#[cfg(feature = "gcp")]
#[test]
fn gcs_is_set_up_from_its_url() {
    let options = [("skip_signature".to_string(), "true".to_string())];
    assert_eq!(open_url("gs://bucket/job", options, false).unwrap().1, Path::from("job"));
}

#[cfg(feature = "azure")]
#[test]
fn azure_is_set_up_from_its_url() {
    let options = || {
        [("account_name".to_string(), "a".to_string()), ("skip_signature".to_string(), "true".to_string())]
    };
    assert_eq!(open_url("az://container/job", options(), false).unwrap().1, Path::from("job"));
    let long = "abfss://container@account.dfs.core.windows.net/job";
    assert_eq!(open_url(long, options(), false).unwrap().1, Path::from("job"));
}
