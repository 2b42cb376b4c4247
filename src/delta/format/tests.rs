//! The format against the model of a delta, and against damage of each of its parts. One file,
//! because all tests share the strategies and the helpers that patch bytes.

use proptest::prelude::*;

use super::super::model::{Model, Step, model_of, run, steps};
use super::super::{ActiveDelta, DecodedDelta, Entry, MergeOp, RangeSet, TableKind, merge_all};
use super::writer::{encode, write_section};
use super::*;
use crate::error::ErrorKind;
use crate::key_group::KeyGroup;

fn groups(first: u16, last: u16) -> KeyGroupRange {
    KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }
}

/// The key groups that the model's keys are in, and one more on either side.
fn header() -> DeltaHeader {
    DeltaHeader {
        epoch: Epoch(3),
        subtask: SubtaskIndex(2),
        range: groups(4, 7),
        first: DeltaSeq(17),
        last: DeltaSeq(18),
    }
}

/// Leaves entries as they are.
fn whole<'a>(_key: &[u8], entry: Entry<'a>) -> Option<Entry<'a>> {
    Some(entry)
}

fn sealed(steps: &[Step]) -> (Model, Sealed) {
    let (mut delta, mut model) = (ActiveDelta::new(), Model::default());
    for step in steps {
        run(&mut delta, step);
        model.apply(step);
    }
    (model, seal(&delta.cut(), &header(), whole))
}

fn decode(bytes: Bytes) -> crate::Result<(DeltaHeader, DecodedDelta)> {
    let reader = DeltaReader::open(bytes)?;
    Ok((*reader.header(), reader.entries_in(reader.header().range)?))
}

/// A delta with all there is: every kind of entry, tombstones, several blocks, large values, blocks
/// that LZ4 shrinks and one that it cannot. The same bytes on every machine.
fn golden() -> Sealed {
    let key = |group: u16, state: u32, user: u32| {
        [&group.to_be_bytes()[..], &state.to_be_bytes(), &user.to_be_bytes()].concat()
    };
    let mut delta = ActiveDelta::new();
    for user in 0..600 {
        let group = 4 + (user % 4) as u16;
        delta.put(
            TableKind::Hash,
            &key(group, 1, user),
            format!("value of user {user}").repeat(4).as_bytes(),
        );
        delta.merge(TableKind::Ordered, MergeOp::ListAppend, &key(group, 2, user), &user.to_be_bytes());
    }
    // Either value fills its block; the second one's holds nothing else.
    for user in 1_000_000..1_000_002 {
        let noise = (0..4100_u64).flat_map(|i| crate::env::splitmix64(i).to_le_bytes()).collect::<Vec<_>>();
        delta.put(TableKind::Hash, &key(5, 1, user), &noise);
    }
    delta.delete(TableKind::Hash, &key(5, 1, 1));
    delta.delete_range(&key(6, 2, 100), &key(6, 2, 300));
    delta.delete_range(&key(7, 9, 0), &key(7, 10, 0));
    delta.merge(TableKind::Ordered, MergeOp::ListAppend, &key(6, 2, 110), b"after the tombstone");
    seal(&delta.cut(), &header(), whole)
}

#[test]
fn golden_file_of_version_1_stays_readable_and_is_written_bit_for_bit() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/delta-v1.bin");
    let sealed = golden();
    // To make the file of a new version: ALLUVIUM_WRITE_GOLDEN=1.
    if std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &sealed.bytes).unwrap();
    }
    let stored = std::fs::read(path).unwrap();
    assert!(sealed.bytes == stored, "the bytes of version 1 have changed");
    let (found, decoded) = decode(Bytes::from(stored)).unwrap();
    assert_eq!(found, header());
    assert_eq!(decoded.len() as u64, sealed.entries);
    assert_eq!(decoded.tombstones().len(), 2);
    let reader = DeltaReader::open(sealed.bytes.clone()).unwrap();
    assert!(reader.blocks().any(|block| block.codec == Codec::Raw));
    assert!(reader.blocks().filter(|block| block.codec == Codec::Lz4).count() >= 2);
    assert_eq!(encode(decoded.iter(), decoded.tombstones(), &found).bytes, sealed.bytes);
}

#[test]
fn every_flipped_bit_and_every_cut_of_the_golden_file_is_an_error() {
    let good = golden().bytes;
    // Every bit of header, tombstones, index and footer, and every 97th byte of the blocks.
    let reader = DeltaReader::open(good.clone()).unwrap();
    let blocks_end = HEADER_LEN + reader.blocks().map(|block| block.stored_len as usize).sum::<usize>();
    for at in (0..good.len()).filter(|at| !(HEADER_LEN..blocks_end).contains(at) || at % 97 == 0) {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            let kind = decode(Bytes::from(bad)).unwrap_err().kind();
            let newer = at == 4 || at == 5;
            assert!(
                kind == ErrorKind::Corrupt || newer && kind == ErrorKind::UnsupportedVersion,
                "byte {at}"
            );
        }
    }
    for len in (0..good.len()).filter(|len| *len < 200 || len % 61 == 0 || *len + 200 > good.len()) {
        assert_eq!(decode(good.slice(..len)).unwrap_err().kind(), ErrorKind::Corrupt, "cut to {len}");
    }
    let longer = [&good[..], b"x"].concat();
    assert_eq!(decode(Bytes::from(longer)).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut bytes = golden().bytes.to_vec();
    bytes[4] = 2;
    let error = DeltaReader::open(Bytes::from(bytes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_run_of_deltas_is_read_from_its_end_to_its_beginning() {
    let (large, empty) = (golden().bytes, seal(&ActiveDelta::new().cut(), &header(), whole).bytes);
    let run = [&empty[..], &large, &empty, &large].concat();
    let readers = DeltaReader::open_all(Bytes::from(run.clone())).unwrap();
    let entries: Vec<_> = readers.iter().map(DeltaReader::entries).collect();
    let count = golden().entries;
    assert_eq!(entries, [0, count, 0, count]);
    assert_eq!(readers[1].entries_in(groups(7, 7)).unwrap().len(), 300);
    assert!(DeltaReader::open(Bytes::from(run.clone())).is_err(), "more than one");
    // What is between two deltas is of neither.
    for cut in [1, empty.len() - 1, empty.len() + large.len() + 7, run.len() - 1] {
        let left_out = [&run[..cut], &run[cut + 1..]].concat();
        for bad in [left_out, run[cut..].to_vec(), run[..cut].to_vec()] {
            let error = DeltaReader::open_all(Bytes::from(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}");
        }
    }
    assert!(DeltaReader::open_all(Bytes::new()).is_err());
}

#[test]
fn an_empty_delta_is_small_and_comes_back() {
    let sealed = seal(&ActiveDelta::new().cut(), &header(), whole);
    assert_eq!(sealed.bytes.len(), HEADER_LEN + SECTION_LEN + FOOTER_LEN);
    assert!(decode(sealed.bytes).unwrap().1.is_empty());
}

#[test]
fn blocks_outside_the_wanted_groups_are_not_read() {
    let good = golden().bytes;
    let mut bad = good.to_vec();
    bad[HEADER_LEN + 10] ^= 1;
    let reader = DeltaReader::open(Bytes::from(bad)).unwrap();
    assert_eq!(reader.entries_in(groups(4, 4)).unwrap_err().kind(), ErrorKind::Corrupt);
    let last = reader.entries_in(groups(7, 7)).unwrap();
    assert_eq!(last.len(), 300);
    assert_eq!(last.tombstones().len(), 1);
    assert!(last.iter().all(|(key, _)| crate::key::group_of(key) == Some(KeyGroup(7))));
}

/// Wraps `index` sections and `data` in correct checksums, as an attacker would.
fn forged(data: &[u8], sections: &[Section], entries: u64) -> Bytes {
    let good = seal(&ActiveDelta::new().cut(), &header(), whole).bytes;
    let mut out = good[..HEADER_LEN].to_vec();
    out.extend(data);
    let index: Vec<u8> = sections.iter().fold(Vec::new(), |mut out, section| {
        write_section(section, &mut out);
        out
    });
    out.extend(&index);
    let mut footer = (sections.len() as u32 - 1).to_le_bytes().to_vec();
    footer.extend(crc32c::crc32c(&index).to_le_bytes());
    footer.extend(entries.to_le_bytes());
    footer.extend(crc32c::crc32c(&footer).to_le_bytes());
    out.extend(footer);
    Bytes::from(out)
}

fn block_of(data: &[u8], entries: u32) -> Section {
    Section {
        stored_len: data.len() as u32,
        raw_len: data.len() as u32,
        crc32c: crc32c::crc32c(data),
        entries,
        first_group: 5,
        last_group: 5,
        ..Section::default()
    }
}

#[test]
fn lies_under_correct_checksums_are_found() {
    let open_one =
        |data: &[u8], section| decode(forged(data, &[Section::default(), section], section.entries.into()));
    let good = [0, 3, TAG_PUT, 1, 0, 5, b'a', b'x', 2, 1, TAG_DELETE, b'b'];
    let honest = block_of(&good, 2);
    assert_eq!(open_one(&good, honest).unwrap().1.len(), 2);

    let lies = [
        Section { entries: 1, ..honest },
        Section { entries: u32::MAX, ..honest },
        Section { entries: 0, ..honest },
        Section { raw_len: u32::MAX, codec: Codec::Lz4, ..honest },
        Section { raw_len: 11, ..honest },
        Section { first_group: 4, ..honest },
        Section { last_group: 6, ..honest },
        Section { first_group: 6, ..honest },
        Section { first_group: 0, ..honest },
        Section { stored_len: 11, ..honest },
    ];
    for lie in lies {
        assert_eq!(open_one(&good, lie).unwrap_err().kind(), ErrorKind::Corrupt, "{lie:?}");
    }
    let datas: [&[u8]; 9] = [
        // Shares more than there is; out of order; equal; unknown tag; unknown operator; too short
        // a key.
        &[0, 3, TAG_PUT, 1, 0, 5, b'a', b'x', 4, 1, TAG_DELETE, b'b'],
        &[0, 3, TAG_PUT, 1, 0, 5, b'b', b'x', 2, 1, TAG_DELETE, b'a'],
        &[0, 3, TAG_PUT, 1, 0, 5, b'b', b'x', 3, 0, TAG_DELETE, 0],
        &[0, 3, 3, 1, 0, 5, b'a', b'x', 2, 1, TAG_DELETE, b'b'],
        &[0, 3, TAG_MERGE, 9, 1, 0, 5, b'a', b'x', 2, 1, TAG_DELETE, b'b'],
        &[0, 1, TAG_PUT, 1, 0, b'x', 1, 1, TAG_DELETE, 5],
        // Lengths beyond the end, beyond 32 bits, and without end.
        &[0, 3, TAG_PUT, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 5, b'a', b'x'],
        &[0, 0xff, 0xff, 0xff, 0xff, 0x7f, TAG_PUT, 1, 0, 5, b'a', b'x'],
        &[0xff; 20],
    ];
    for data in datas {
        assert_eq!(open_one(data, block_of(data, 2)).unwrap_err().kind(), ErrorKind::Corrupt, "{data:?}");
    }

    // A length that LZ4 cannot have shrunk is refused before it is allocated.
    let lie = Section { raw_len: u32::MAX, codec: Codec::Lz4, ..honest };
    assert!(open_one(&good, lie).unwrap_err().to_string().contains("length out of bounds"));

    // Bytes that no section accounts for.
    let error = decode(forged(&[&good[..], b"x"].concat(), &[Section::default(), honest], 2)).unwrap_err();
    assert!(error.to_string().contains("account for"), "{error}");
    // Two blocks out of order.
    let error = decode(forged(&[good, good].concat(), &[Section::default(), honest, honest], 4)).unwrap_err();
    assert!(error.to_string().contains("order"), "{error}");
    // The same told from the index alone, without reading a block.
    let later = Section { first_group: 6, last_group: 6, ..honest };
    let forgery = forged(&[good, good].concat(), &[Section::default(), later, honest], 4);
    assert!(DeltaReader::open(forgery).unwrap_err().to_string().contains("blocks out of order"));
    // Entries that do not add up.
    let error = decode(forged(&good, &[Section::default(), honest], 3)).unwrap_err();
    assert!(error.to_string().contains("add up"), "{error}");
    // Tombstones that are empty, or touch.
    for data in [&[1, 5, 1, 5][..], &[1, 5, 1, 6, 1, 6, 1, 7], &[1, 5], &[9, 5, 1, 6]] {
        let section = Section { first_group: 0, last_group: 0, ..block_of(data, data.len() as u32 / 4) };
        assert_eq!(decode(forged(data, &[section], 0)).unwrap_err().kind(), ErrorKind::Corrupt, "{data:?}");
    }
}

#[test]
fn a_small_block_cannot_unfold_to_a_huge_one() {
    // One key of 30 KiB, then entries of 4 bytes that share nearly all of it.
    let mut data = vec![0, 0x80, 0xf0, 0x01, TAG_DELETE, 0, 5];
    data.resize(5 + 30 * 1024, b'k');
    let entries = 10_000;
    for _ in 1..entries {
        data.extend([0xff, 0xef, 0x01, 2, TAG_DELETE, b'k', b'l']);
    }
    let error =
        decode(forged(&data, &[Section::default(), block_of(&data, entries)], entries.into())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn i6_the_memory_of_a_delta_is_known_before_it_is_decoded() {
    let wide = |len: usize, count: u32| {
        let mut delta = ActiveDelta::new();
        for user in 0..count {
            // Keys that share all but their ends, and values that LZ4 makes next to nothing of.
            let key = [&5_u16.to_be_bytes()[..], &[b'k'; 300], &user.to_be_bytes()].concat();
            delta.put(TableKind::Hash, &key, &vec![0; len]);
        }
        DeltaReader::open(seal(&delta.cut(), &header(), whole).bytes).unwrap()
    };
    for (len, count) in [(0, 30_000), (1, 30_000), (100, 10_000), (10_000, 500), (1 << 20, 8)] {
        let reader = wide(len, count);
        let (all, bound) = (reader.entries_in(header().range).unwrap(), reader.decoded_len(header().range));
        let real = all.bytes() as u64;
        assert!(real <= bound && bound <= 5 * real, "{real} {bound} with values of {len}");
        let limit = bound / 5;
        let parts: Vec<_> = reader.parts(header().range, limit).map(Result::unwrap).collect();
        assert_eq!(parts.iter().map(DecodedDelta::len).sum::<usize>(), all.len());
        assert!(parts.len() >= 5, "{} parts", parts.len());
        let block = 2 * (len as u64 + (64 << 10)) + (30 << 10);
        assert!(parts.iter().all(|part| part.bytes() as u64 <= limit + block));
        assert!(parts.iter().flat_map(DecodedDelta::iter).eq(all.iter()));
    }
}

proptest! {
    #[test]
    fn what_is_sealed_comes_back(steps in steps(150), wanted in (4_u16..8, 4_u16..8)) {
        let (model, sealed) = sealed(&steps);
        prop_assert_eq!(sealed.crc32c, crc32c::crc32c(&sealed.bytes));
        prop_assert_eq!(sealed.entries as usize, model.points.len());
        let (found, decoded) = decode(sealed.bytes.clone()).unwrap();
        prop_assert_eq!(found, header());
        prop_assert_eq!(model_of(decoded.iter(), decoded.tombstones()), model.clone());
        // Decoding trims tombstones to the owned range, the reader itself does not.
        let reader = DeltaReader::open(sealed.bytes.clone()).unwrap();
        prop_assert_eq!(&encode(decoded.iter(), reader.tombstones(), &found).bytes, &sealed.bytes);

        let range = groups(wanted.0.min(wanted.1), wanted.0.max(wanted.1));
        let part = reader.entries_in(range).unwrap();
        let inside = |key: &[u8]| crate::key::group_of(key).is_some_and(|group| range.contains(group));
        let mut expected = model;
        expected.points.retain(|key, _| inside(key));
        expected.deleted.retain(|key| inside(key));
        prop_assert_eq!(model_of(part.iter(), part.tombstones()), expected.clone());
        // Clipping gives a tombstone other bounds.
        prop_assert!(part.bytes() as u64 <= reader.decoded_len(range) + 16);

        // Part by part it is the same, however small they are.
        let parts: Vec<_> = reader.parts(range, 1).map(Result::unwrap).collect();
        prop_assert!(parts.iter().skip(1).all(|part| part.tombstones().is_empty()));
        let entries = parts.iter().flat_map(DecodedDelta::iter);
        prop_assert_eq!(model_of(entries, part.tombstones()), expected);
    }

    #[test]
    fn merging_is_the_algebra(deltas in prop::collection::vec(steps(40), 0..6), split in 0..6_usize) {
        let (models, decoded): (Vec<_>, Vec<_>) = deltas
            .iter()
            .map(|steps| {
                let (model, sealed) = sealed(steps);
                (model, sealed.bytes)
            })
            .unzip();
        let all = |bytes: &[Bytes]| {
            merge_all(bytes.iter().map(|bytes| decode(bytes.clone()).unwrap().1).collect()).unwrap()
        };
        let expected = models.iter().fold(Model::default(), |before, model| before.merge(model));
        let merged = all(&decoded);
        prop_assert_eq!(merged.len(), expected.points.len());
        prop_assert_eq!(model_of(merged.iter(), merged.tombstones()), expected.clone());

        // Merged in two steps it is the same, down to the bytes.
        let at_once = encode(merged.iter(), merged.tombstones(), &header()).bytes;
        let (older, newer) = decoded.split_at(split.min(decoded.len()));
        let [older, newer] = [older, newer].map(|part| {
            let merged = all(part);
            encode(merged.iter(), merged.tombstones(), &header()).bytes
        });
        let merged = all(&[older, newer]);
        prop_assert_eq!(encode(merged.iter(), merged.tombstones(), &header()).bytes, at_once);
    }

    #[test]
    fn random_bytes_never_panic(noise in prop::collection::vec(any::<u8>(), 0..400), keep in 0..200_usize) {
        prop_assert!(decode(Bytes::from(noise.clone())).is_err());
        let good = golden().bytes;
        let grafted = [&good[..keep], &noise].concat();
        prop_assert!(decode(Bytes::from(grafted)).is_err());
    }

    #[test]
    fn damage_is_an_error_and_never_another_delta(
        steps in steps(60), at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<prop::sample::Index>(),
    ) {
        let (_, sealed) = sealed(&steps);
        let mut bad = sealed.bytes.to_vec();
        let at = at.index(bad.len());
        bad[at] ^= flip;
        prop_assert!(decode(Bytes::from(bad)).is_err());
        prop_assert!(decode(sealed.bytes.slice(..cut.index(sealed.bytes.len()))).is_err());
    }

    #[test]
    fn random_blocks_under_correct_checksums_never_panic(
        data in prop::collection::vec(prop_oneof![0..6_u8, any::<u8>()], 1..60),
        entries in 1..8_u32,
        codec in prop_oneof![Just(Codec::Raw), Just(Codec::Lz4)],
        raw_len in 0..4000_u32,
    ) {
        let raw_len = if codec == Codec::Raw { data.len() as u32 } else { raw_len };
        let block = Section { codec, raw_len, ..block_of(&data, entries) };
        let _ = decode(forged(&data, &[Section::default(), block], entries.into()));
        let tombstones = Section { first_group: 0, last_group: 0, ..block };
        let _ = decode(forged(&data, &[tombstones], 0));
    }
}

#[test]
fn an_operand_meets_the_older_tombstone_and_not_the_older_value() {
    // The trap: d1 = put(k, a), d2 = delete k's prefix, then append(k, b). The answer is b.
    let key = [0, 5, 0, 0, 0, 1, b'k'];
    let end = [0, 5, 0, 0, 0, 1, b'l'];
    let mut older = DecodedDelta::default();
    older.push(&key, crate::delta::Entry::Put(b"a"));
    let mut tombstones = RangeSet::new();
    tombstones.insert(&key, &end);
    let middle = DecodedDelta::new(tombstones);
    let mut newer = DecodedDelta::default();
    newer.push(&key, crate::delta::Entry::Merge { op: MergeOp::ListAppend, operand: b"b" });
    let merged = merge_all(vec![older, middle, newer]).unwrap();
    assert_eq!(merged.iter().collect::<Vec<_>>(), [(&key[..], crate::delta::Entry::Put(b"b"))]);
}
