//! The rules, to the nanosecond, in a time that only the model's own waits move.

use futures::future::join_all;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::time::simulated::SimulatedTime;
use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;
/// 64 KiB at 50 MB/s and at 100 MB/s.
const AT_50: Duration = Duration::from_nanos(1_310_720);
const AT_100: Duration = Duration::from_nanos(655_360);
const BURST: Duration = pacer::BURST;

struct Bench {
    model: StoreModel,
    time: SimulatedTime,
}

impl Bench {
    fn new(options: &str) -> Self {
        Self::with(options.parse().unwrap())
    }

    fn with(options: StoreModelOptions) -> Self {
        let time = SimulatedTime::default();
        let model = StoreModel::with_time(Arc::new(InMemory::new()), options, Box::new(time.clone()));
        Self { model, time }
    }

    /// How long it takes.
    fn measure<T>(&self, future: impl Future<Output = T>) -> (T, Duration) {
        let start = self.time.now();
        let output = self.time.run(future);
        (output, self.time.now() - start)
    }

    fn put(&self, name: &str, bytes: usize) -> Duration {
        let (result, took) = self.measure(self.model.put(&name.into(), vec![7; bytes].into()));
        result.unwrap();
        took
    }
}

#[test]
fn a_put_is_paced_and_then_takes_one_latency() {
    let bench = Bench::new("30ms,50MB/s,100MB/s");
    assert_eq!(bench.put("empty", 0), MS(30));
    assert_eq!(bench.put("within the burst", CHUNK), MS(30));
    // 80 chunks; its own pacer gives 5 ms away at its start.
    let took = bench.put("5 MiB", 80 * CHUNK);
    assert_eq!(took, 80 * AT_50 - BURST + MS(30));
    assert_eq!(bench.model.stored_bytes(), 81 * CHUNK as u64);
}

#[test]
fn parallel_uploads_share_their_bandwidth() {
    let bench = Bench::new("30ms,50MB/s,100MB/s");
    let puts = |n: usize| {
        let model = &bench.model;
        join_all((0..n).map(move |i| async move {
            model.put(&format!("{i}").into(), vec![0; 80 * CHUNK].into()).await.unwrap();
        }))
    };
    // Two streams of 50 MB/s are just what 100 MB/s can take; four take twice as long.
    let (_, two) = bench.measure(puts(2));
    assert_eq!(two, 80 * AT_50 - BURST + MS(30));
    bench.measure(bench.time.sleep_until(bench.time.now() + MS(1000)));
    let (_, four) = bench.measure(puts(4));
    assert_eq!(four, 4 * 80 * AT_100 - BURST + MS(30));
}

#[test]
fn downloads_have_a_latency_first_and_a_shared_pacer_of_their_own() {
    let bench = Bench::new("30ms,50MB/s,100MB/s");
    bench.put("object", 80 * CHUNK);
    let location = Path::from("object");
    let (bytes, took) = bench.measure(async {
        let result = bench.model.get(&location).await.unwrap();
        let first = bench.time.now();
        (result.bytes().await.unwrap(), first)
    });
    assert_eq!(bytes.0.len(), 80 * CHUNK);
    assert_eq!(took, MS(30) + 80 * AT_50 - BURST);
    let (_, took) = bench.measure(bench.model.head(&location));
    assert_eq!(took, MS(30));

    // An upload beside three downloads is not slowed down by them.
    bench.measure(bench.time.sleep_until(bench.time.now() + MS(1000)));
    let gets = join_all((0..4).map(|_| async { bench.model.get(&location).await.unwrap().bytes().await }));
    let (both, took) = bench.measure(async {
        let other = Path::from("other");
        let put = bench.model.put(&other, vec![0; 80 * CHUNK].into());
        let start = bench.time.now();
        let put = async { put.await.map(|_| bench.time.now() - start) };
        futures::join!(put, gets)
    });
    assert_eq!(both.0.unwrap(), 80 * AT_50 - BURST + MS(30));
    assert_eq!(took, MS(30) + 4 * 80 * AT_100 - BURST);
}

#[test]
fn a_part_is_a_stream_of_its_own() {
    let bench = Bench::new("30ms,50MB/s,1GB/s");
    let location = Path::from("parts");
    let (_, took) = bench.measure(async {
        let mut upload = bench.model.put_multipart(&location).await.unwrap();
        let parts: Vec<_> = (0..3).map(|_| upload.put_part(vec![1; 80 * CHUNK].into())).collect();
        join_all(parts).await.into_iter().for_each(|part| part.unwrap());
        assert_eq!(bench.model.stored_bytes(), 0, "nothing is there before the end");
        upload.complete().await.unwrap();
    });
    assert_eq!(took, 80 * AT_50 - BURST + MS(30) + MS(30));
    assert_eq!(bench.model.stored_bytes(), 240 * CHUNK as u64);
}

#[test]
fn listing_and_deleting_cost_one_latency_each() {
    let bench = Bench::new("30ms,50MB/s,100MB/s");
    for name in ["a/1", "a/2", "b"] {
        bench.put(name, 10);
    }
    let (names, took) = bench.measure(bench.model.list(Some(&"a".into())).try_collect::<Vec<_>>());
    assert_eq!((names.unwrap().len(), took), (2, MS(30)));
    let (listed, took) = bench.measure(bench.model.list_with_delimiter(None));
    assert_eq!((listed.unwrap().objects.len(), took), (1, MS(30)));
    let both = stream::iter(["a/1", "a/2"].map(|name| Ok(Path::from(name)))).boxed();
    let (deleted, took) = bench.measure(bench.model.delete_stream(both).try_collect::<Vec<_>>());
    assert_eq!((deleted.unwrap().len(), took), (2, MS(30)));
    assert_eq!((bench.model.stored_bytes(), bench.model.stored_bytes_peak()), (10, 30));
    bench.measure(bench.model.copy(&"b".into(), &"c".into())).0.unwrap();
    assert_eq!(bench.model.stored_bytes(), 20);
    // An object that is overwritten counts once.
    bench.put("b", 4);
    assert_eq!(bench.model.stored_bytes(), 14);
}

#[test]
fn an_outage_begins_and_ends_when_it_should() {
    let bench = Bench::new("30ms,50MB/s,100MB/s");
    bench.model.plan_outage(MS(100), MS(1000));
    let put =
        |name: &'static str, bytes| bench.measure(bench.model.put(&name.into(), vec![0; bytes].into())).0;
    put("before", 10).unwrap();
    // Under way when the outage begins: 5 MB take 95 ms and more.
    put("across", 5_000_000).unwrap_err();
    put("within", 10).unwrap_err();
    assert!(bench.measure(bench.model.get(&"before".into())).0.is_err());
    assert!(bench.measure(bench.model.list(None).try_collect::<Vec<_>>()).0.is_err());
    let gone = stream::once(async { Ok("before".into()) }).boxed();
    assert!(bench.measure(bench.model.delete_stream(gone).try_collect::<Vec<_>>()).0.is_err());
    assert!(bench.measure(bench.model.put_multipart(&"x".into())).0.is_err());
    bench.measure(bench.time.sleep_until(bench.time.now() + MS(1000)));
    put("after", 10).unwrap();
    // What failed was not applied.
    let (listed, _) = bench.measure(bench.model.list(None).try_collect::<Vec<_>>());
    assert_eq!(listed.unwrap().len(), 2);
}

#[test]
fn as_many_requests_fail_as_was_asked_for_and_half_of_them_were_applied() {
    let options = "0,unlimited,unlimited".parse::<StoreModelOptions>().unwrap();
    let bench = Bench::with(options.error_rate(0.2).unwrap().seed(1));
    let failed = (0..5000)
        .filter(|i| bench.measure(bench.model.put(&format!("{i}").into(), "x".into())).0.is_err())
        .count();
    let stored = bench.model.stored_bytes() as usize;
    let lost = stored - (5000 - failed);
    assert!((900..1100).contains(&failed) && (430..570).contains(&lost), "{failed} {lost}");
}

#[test]
fn what_was_there_before_can_be_counted() {
    let bench = Bench::new("30ms,50MB/s,100MB/s");
    bench.time.run(bench.model.inner.put(&"job/old".into(), vec![0; 100].into())).unwrap();
    bench.time.run(bench.model.inner.put(&"other".into(), vec![0; 1000].into())).unwrap();
    // The listing has a deadline on the runtime's clock. It is never reached.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let (counted, took) = bench.measure(bench.model.count_existing(&"job".into(), None));
    counted.unwrap();
    assert_eq!((bench.model.stored_bytes(), took), (100, Duration::ZERO));
}

/// In a runtime's own time, over files: a lower bound, and the bytes.
#[tokio::test]
async fn files_come_back_whole_and_no_faster_than_modelled() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_store(dir.path().to_str().unwrap(), &[], false).unwrap();
    let model = StoreModel::new(store, "5ms,20MB/s,100MB/s".parse().unwrap());
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
    let location = Path::from("file");
    let time = RuntimeTime::new();
    model.put(&location, bytes.clone().into()).await.unwrap();
    let put = time.now();
    assert!(put >= MS(5 + 50), "{put:?}");
    assert_eq!(model.get(&location).await.unwrap().bytes().await.unwrap(), bytes);
    assert!(time.now() - put >= MS(5 + 45), "{:?}", time.now());
    let part = model.get_range(&location, 300_000..700_000).await.unwrap();
    assert_eq!(part, bytes[300_000..700_000]);
}
