use proptest::prelude::*;

use super::*;

fn sample() -> ObjectName {
    ObjectName::data(Epoch(7), SubtaskIndex(3), Nonce([0xab; 16]), DataKind::Sst, 42)
}

#[test]
fn names_never_change() {
    // Part of the format: objects written by an older version must be found again.
    assert_eq!(ObjectName::manifest(Version(12)).to_string(), "manifest/00000000000000000012");
    assert_eq!(
        sample().to_string(),
        "data/00000000000000000007/00003/abababababababababababababababab/0000000042.sst"
    );
    assert_eq!(ObjectName::pin(Nonce([1; 16])).to_string(), "pin/01010101010101010101010101010101");
    let probe = |version| ObjectName::probe(Version(version), Nonce([0; 16])).to_string();
    assert_eq!(probe(0), "probe/00000000000000000000000000000000");
    assert_eq!(probe(7), "probe/v00000000000000000007-00000000000000000000000000000000");
    assert_eq!(ObjectName::Opened(Epoch(7)).to_string(), "opened/00000000000000000007");
    let savepoint = "v1.2_before-upgrade".parse().unwrap();
    let savepoint = |n| ObjectName::savepoint(&savepoint, Generation(n));
    assert_eq!(savepoint(0).to_string(), "savepoint/v1.2_before-upgrade");
    assert_eq!(savepoint(12).to_string(), "savepoint/v1.2_before-upgrade!0000000012");
}

/// A name in this folder.
fn sample_in(folder: Folder) -> ObjectName {
    match folder {
        Folder::Manifests => ObjectName::manifest(Version(12)),
        Folder::Data => sample(),
        Folder::Pins => ObjectName::pin(Nonce([1; 16])),
        Folder::Savepoints => ObjectName::savepoint(&"a".parse().unwrap(), Generation(12)),
        Folder::Probes => ObjectName::probe(Version(7), Nonce([0; 16])),
        Folder::Opened => ObjectName::Opened(Epoch(7)),
    }
}

#[test]
fn a_name_of_every_folder_reads_back() {
    for folder in Folder::ALL {
        let name = sample_in(folder);
        assert_eq!(name.folder(), folder);
        assert!(name.to_string().starts_with(&format!("{}/", folder.name())), "{name}");
        assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
    }
}

#[test]
fn only_exact_names_are_read() {
    for wrong in [
        "",
        "manifest",
        "manifest/",
        "manifest/12",
        "manifest/+0000000000000000012",
        "manifest/00000000000000000012/",
        "manifest/99999999999999999999",
        "/manifest/00000000000000000012",
        "pin/0101010101010101010101010101010",
        "pin/ABABABABABABABABABABABABABABABAB",
        "pin/+1010101010101010101010101010101",
        "probe/../manifest/00000000000000000012",
        "probe/v00000000000000000000-00000000000000000000000000000000",
        "probe/v7-00000000000000000000000000000000",
        "opened/7",
        "savepoint/",
        "savepoint/a/b",
        "savepoint/..",
        "savepoint/-",
        "savepoint/a!",
        "savepoint/a!0000000000",
        "savepoint/a!1",
        "savepoint/!0000000001",
        "savepoint/a!0000000001!0000000001",
        "savepoint/a@0000000001",
        "data/00000000000000000007/00003/abababababababababababababababab/0000000042",
        "data/00000000000000000007/00003/abababababababababababababababab/0000000042.SST",
        "data/00000000000000000007/00003/abababababababababababababababab/42.sst",
        "data/00000000000000000007/00003/abababababababababababababababab/0000000042.sst/x",
        "data/00000000000000000007/3/abababababababababababababababab/0000000042.sst",
        "data/00000000000000000007/00003/0000000042.sst",
        "other/x",
    ] {
        assert_eq!(ObjectName::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn names_of_savepoints_are_plain() {
    let longest = "x".repeat(100);
    for good in ["a", "7", "A.b-c_d", "2024-02-29", longest.as_str()] {
        assert_eq!(good.parse::<SavepointName>().unwrap().to_string(), good);
    }
    let too_long = "x".repeat(101);
    for wrong in ["", ".", "..", "-a", "_a", ".a", "a b", "a/b", "a\\b", "ä", "a\n", "a#1", "a%20", &too_long]
    {
        let error = wrong.parse::<SavepointName>().unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::InvalidArgument, "{wrong:?}");
        assert!(error.to_string().contains("begin with a letter"), "{error}");
    }
}

#[test]
fn serde_keeps_names_and_refuses_others() {
    let bytes = postcard::to_stdvec(&sample()).unwrap();
    assert_eq!(postcard::from_bytes::<ObjectName>(&bytes).unwrap(), sample());
    let wrong = postcard::to_stdvec("data/../../secret").unwrap();
    assert!(postcard::from_bytes::<ObjectName>(&wrong).is_err());
    assert_eq!(serde_json::to_string(&sample()).unwrap(), format!("\"{}\"", sample()));
}

#[test]
fn a_name_is_a_small_value() {
    assert!(size_of::<ObjectName>() <= 40, "{} bytes", size_of::<ObjectName>());
}

/// With numbers that fit into their padding, and few of each.
fn any_usual_name() -> impl Strategy<Value = ObjectName> {
    let nonce = (0..3_u8).prop_map(|byte| Nonce([byte; 16]));
    prop_oneof![
        any::<u64>().prop_map(|version| ObjectName::Manifest(Version(version))),
        nonce.clone().prop_map(ObjectName::Pin),
        (0..3_u64, nonce.clone()).prop_map(|(v, nonce)| ObjectName::Probe(Version(v), nonce)),
        (0..3_u64).prop_map(|epoch| ObjectName::Opened(Epoch(epoch))),
        ("[a-c][a-c._-]{0,2}", 0..12_u64)
            .prop_map(|(name, n)| ObjectName::Savepoint(name.parse().unwrap(), Generation(n))),
        (0..3_u64, 0..100_000_u32, nonce, 0..4_usize, 0..12_u64).prop_map(
            |(epoch, subtask, instance, kind, n)| {
                let (epoch, subtask) = (Epoch(epoch), SubtaskIndex(subtask % 3));
                ObjectName::data(epoch, subtask, instance, DataKind::ALL[kind], n)
            }
        ),
    ]
}

fn any_name() -> impl Strategy<Value = ObjectName> {
    let nonce = any::<[u8; 16]>().prop_map(Nonce);
    prop_oneof![
        any::<u64>().prop_map(|version| ObjectName::Manifest(Version(version))),
        nonce.clone().prop_map(ObjectName::Pin),
        (any::<u64>(), nonce.clone()).prop_map(|(v, nonce)| ObjectName::Probe(Version(v), nonce)),
        any::<u64>().prop_map(|epoch| ObjectName::Opened(Epoch(epoch))),
        ("[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}", any::<u64>())
            .prop_map(|(name, n)| ObjectName::Savepoint(name.parse().unwrap(), Generation(n))),
        (any::<u64>(), any::<u32>(), nonce, 0..4usize, any::<u64>()).prop_map(
            |(epoch, subtask, instance, kind, n)| ObjectName::Data {
                epoch: Epoch(epoch),
                subtask: SubtaskIndex(subtask),
                instance,
                kind: DataKind::ALL[kind],
                n,
            }
        ),
    ]
}

proptest! {
    #[test]
    fn every_name_reads_back(name in any_name()) {
        let text = name.to_string();
        prop_assert_eq!(ObjectName::parse(&text), Some(name.clone()));
        prop_assert_eq!(ObjectName::try_from(text.as_str()).unwrap(), name);
    }

    #[test]
    fn what_reads_is_written_the_same(text in "(manifest|data|opened|pin|savepoint|probe)(/v?[0-9a-f+.]{0,33}){0,5}") {
        if let Some(name) = ObjectName::parse(&text) {
            prop_assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn names_sort_as_a_listing_does(a in any_usual_name(), b in any_usual_name()) {
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }
}
