//! When to take the next base: a pure decision over plain values, so that every case is a test.

use std::time::Duration;

use crate::ids::DeltaSeq;

/// What triggers a run. All off means: only on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    /// Time from one base of a subtask to its next.
    pub(crate) interval: Option<Duration>,
    /// Sealed changelog bytes since the last base.
    pub(crate) changelog_bytes: Option<u64>,
    /// Longest replay that a restore may need.
    pub(crate) replay: Option<ReplayBound>,
}

/// A bound on the replay at restore, with the speed that turns bytes into time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplayBound {
    pub(crate) longest: Duration,
    /// Changelog bytes that a restore downloads, decodes and applies in a second.
    pub(crate) bytes_per_second: u64,
}

/// A subtask's place among its siblings: what keeps them from starting at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) index: u32,
    pub(crate) of: u32,
}

/// What happened so far. Times are those of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct History {
    /// When the attempt began.
    pub(crate) opened: Duration,
    /// When the last run that succeeded was started.
    pub(crate) last_run: Option<Duration>,
    /// Whether the state came from other subtasks at a rescale and no run has succeeded since.
    pub(crate) rescaled: bool,
    /// Runs that failed since then, and when the last of them ended.
    pub(crate) failures: u32,
    pub(crate) last_failure: Duration,
    /// Whether the run under way, or the one that failed, was asked for.
    pub(crate) on_demand: bool,
}

/// Why a run is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Interval,
    ChangelogBytes,
    ReplayTime,
    Rescaled,
    Retry,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Run(Reason),
    /// Nothing to do before this moment, if the changelog does not grow; None: never.
    Wait {
        until: Option<Duration>,
    },
}

/// First wait after a failed run; doubles with every further failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Whether to start a run `now`, when `changelog_bytes` have gathered since the last base. The
/// caller sees to it that only one run per subtask is under way.
pub(crate) fn decide(
    now: Duration,
    settings: &Settings,
    share: Share,
    history: &History,
    changelog_bytes: u64,
) -> Decision {
    let owed = history.on_demand && history.failures > 0;
    if changelog_bytes == 0 && !owed {
        // A base would say nothing that the last one does not.
        return Decision::Wait { until: None };
    }
    // Before the other reasons. They would start a new run at once after each failure, against a store or a
    // disk that has just failed one.
    if history.failures > 0 {
        let retry = history.last_failure.saturating_add(backoff(history.failures));
        return if now >= retry {
            Decision::Run(Reason::Retry)
        } else {
            Decision::Wait { until: Some(retry) }
        };
    }
    if history.rescaled && *settings != Settings::default() {
        // Until then every checkpoint names what the old subtasks had, and a restore joins it
        // again.
        return Decision::Run(Reason::Rescaled);
    }
    if settings.changelog_bytes.is_some_and(|limit| changelog_bytes >= staggered(limit, share, history)) {
        return Decision::Run(Reason::ChangelogBytes);
    }
    if settings.replay.is_some_and(|bound| changelog_bytes >= bytes_within(bound)) {
        return Decision::Run(Reason::ReplayTime);
    }
    match settings.interval.map(|interval| due(interval, share, history)) {
        Some(due) if now >= due => Decision::Run(Reason::Interval),
        until => Decision::Wait { until },
    }
}

/// Whether a base of a snapshot that stands at delta `snapshot` is worth its upload, when the
/// newest is of delta `base`. One that was asked for is, also where no delta is newer: compaction
/// and expiry change the files and not the changelog. Where nothing was ever written there is
/// nothing to keep.
pub(crate) fn is_news(snapshot: DeltaSeq, base: Option<DeltaSeq>, history: &History) -> bool {
    snapshot > base.unwrap_or(DeltaSeq(0)) || (history.on_demand && base.is_some())
}

/// Slots lie `interval` apart, each subtask's shifted by its share of it. The next slot is the
/// first that leaves at least half an interval after the last run: one that something else
/// triggered moves the schedule, but not out of step with the siblings.
fn due(interval: Duration, share: Share, history: &History) -> Duration {
    let shift = (interval / share.of.max(1)).saturating_mul(share.index.saturating_add(1)).min(interval);
    let first = history.opened.saturating_add(shift);
    let Some(last) = history.last_run else { return first };
    let earliest = last.saturating_add(interval / 2);
    let behind = earliest.saturating_sub(first).as_nanos();
    let slots = behind.div_ceil(interval.as_nanos().max(1));
    first.saturating_add(interval.saturating_mul(u32::try_from(slots).unwrap_or(u32::MAX)))
}

/// Subtasks under even load reach a limit in bytes together. The first run of each comes at a limit
/// between a half and the whole, by its share; from then on they stay apart.
fn staggered(limit: u64, share: Share, history: &History) -> u64 {
    if history.last_run.is_some() {
        return limit;
    }
    let (index, of) = (u128::from(share.index), u128::from(share.of.max(1)));
    let part = u128::from(limit) * (of + index + 1).min(2 * of) / (2 * of);
    // At most `limit`, a u64.
    part as u64
}

fn bytes_within(bound: ReplayBound) -> u64 {
    let bytes = bound.longest.as_secs_f64() * bound.bytes_per_second as f64;
    // A cast from f64 saturates.
    (bytes as u64).max(1)
}

fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_RETRY.saturating_mul(1 << doublings).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Share = Share { index: 0, of: 1 };

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn by_interval(seconds: u64) -> Settings {
        Settings { interval: Some(secs(seconds)), ..Settings::default() }
    }

    #[test]
    fn nothing_new_needs_no_base() {
        let history = History { failures: 3, ..History::default() };
        for settings in [by_interval(1), Settings { changelog_bytes: Some(0), ..Settings::default() }] {
            assert_eq!(decide(secs(1000), &settings, ALONE, &history, 0), Decision::Wait { until: None });
        }
    }

    #[test]
    fn a_base_that_was_asked_for_is_taken_of_the_same_delta_again() {
        let asked = History { on_demand: true, ..History::default() };
        let [none, one, two] = [0, 1, 2].map(DeltaSeq);
        for history in [History::default(), asked] {
            assert!(is_news(two, Some(one), &history) && is_news(one, None, &history));
            assert!(!is_news(none, None, &history), "there is no state");
        }
        assert!(!is_news(one, Some(one), &History::default()));
        assert!(is_news(one, Some(one), &asked));
        // And after a failure it is owed, though the changelog is empty.
        let failed = History { failures: 1, ..asked };
        assert_eq!(decide(secs(1), &Settings::default(), ALONE, &failed, 0), Decision::Run(Reason::Retry));
    }

    #[test]
    fn all_triggers_off_means_never() {
        let verdict = decide(secs(1 << 40), &Settings::default(), ALONE, &History::default(), u64::MAX);
        assert_eq!(verdict, Decision::Wait { until: None });
    }

    #[test]
    fn subtasks_start_spread_over_the_interval() {
        let starts: Vec<_> = (0..4)
            .map(|index| {
                let history = History { opened: secs(100), ..History::default() };
                match decide(secs(100), &by_interval(600), Share { index, of: 4 }, &history, 1) {
                    Decision::Wait { until: Some(until) } => until.as_secs(),
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        assert_eq!(starts, [250, 400, 550, 700]);
    }

    #[test]
    fn the_interval_comes_round_in_step() {
        let mut history = History { opened: secs(0), ..History::default() };
        let share = Share { index: 0, of: 2 };
        let mut runs = Vec::new();
        for second in 0..2000 {
            if decide(secs(second), &by_interval(600), share, &history, 1) == Decision::Run(Reason::Interval)
            {
                runs.push(second);
                history.last_run = Some(secs(second));
            }
        }
        assert_eq!(runs, [300, 900, 1500]);
    }

    #[test]
    fn a_run_for_another_reason_moves_the_next_slot_but_keeps_step() {
        let next = |last| {
            let history = History { last_run: Some(secs(last)), ..History::default() };
            match decide(secs(last), &by_interval(600), ALONE, &history, 1) {
                Decision::Wait { until: Some(until) } => until.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(next(200), 600);
        assert_eq!(next(300), 600);
        assert_eq!(next(301), 1200);
        assert_eq!(next(599), 1200);
    }

    #[test]
    fn bytes_trigger_at_the_limit_and_first_runs_are_staggered() {
        let settings = Settings { changelog_bytes: Some(1000), ..Settings::default() };
        let first = |share| {
            (0..=1000)
                .find(|bytes| {
                    decide(secs(0), &settings, share, &History::default(), *bytes)
                        == Decision::Run(Reason::ChangelogBytes)
                })
                .unwrap()
        };
        assert_eq!(
            (0..4).map(|index| first(Share { index, of: 4 })).collect::<Vec<_>>(),
            [625, 750, 875, 1000]
        );
        assert_eq!(first(ALONE), 1000);
        let later = History { last_run: Some(secs(1)), ..History::default() };
        let share = Share { index: 0, of: 4 };
        assert_eq!(decide(secs(2), &settings, share, &later, 999), Decision::Wait { until: None });
        assert_eq!(decide(secs(2), &settings, share, &later, 1000), Decision::Run(Reason::ChangelogBytes));
    }

    #[test]
    fn replay_time_is_predicted_from_bytes() {
        let bound = ReplayBound { longest: secs(10), bytes_per_second: 50 };
        let settings = Settings { replay: Some(bound), ..Settings::default() };
        let verdict = |bytes| decide(secs(0), &settings, ALONE, &History::default(), bytes);
        assert_eq!(verdict(499), Decision::Wait { until: None });
        assert_eq!(verdict(500), Decision::Run(Reason::ReplayTime));
    }

    #[test]
    fn a_rescaled_subtask_wants_a_base_at_once() {
        let history = History { opened: secs(5), rescaled: true, ..History::default() };
        let verdict = |settings| decide(secs(5), &settings, ALONE, &history, 1);
        assert_eq!(verdict(by_interval(600)), Decision::Run(Reason::Rescaled));
        assert_eq!(verdict(Settings::default()), Decision::Wait { until: None }, "only on demand");
        let failed = History { failures: 1, last_failure: secs(5), ..history };
        let verdict = decide(secs(5), &by_interval(600), ALONE, &failed, 1);
        assert_eq!(verdict, Decision::Wait { until: Some(secs(6)) }, "and after a failure not at once");
    }

    #[test]
    fn failed_runs_come_again_ever_more_slowly() {
        let wait = |failures| {
            let history = History { failures, last_failure: secs(100), ..History::default() };
            match decide(secs(100), &by_interval(1), ALONE, &history, 1) {
                Decision::Wait { until: Some(until) } => {
                    assert_eq!(
                        decide(until, &by_interval(1), ALONE, &history, 1),
                        Decision::Run(Reason::Retry)
                    );
                    (until - secs(100)).as_secs()
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([1, 2, 3, 6, 7, 8, u32::MAX].map(wait), [1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let extremes = [0, 1, u64::MAX];
        for (a, b) in extremes.into_iter().flat_map(|a| extremes.map(|b| (a, b))) {
            let settings = Settings {
                interval: Some(Duration::new(a, 999_999_999)),
                changelog_bytes: Some(b),
                replay: Some(ReplayBound { longest: secs(a), bytes_per_second: b }),
            };
            for (index, of) in [(0, 0), (5, 1), (u32::MAX, u32::MAX)] {
                let history = History {
                    opened: secs(b),
                    last_run: Some(secs(a)),
                    rescaled: a == b,
                    failures: u32::from(a == b),
                    last_failure: secs(b),
                    on_demand: a == b,
                };
                decide(secs(b), &settings, Share { index, of }, &history, a);
                decide(secs(a), &by_interval(a), Share { index, of }, &history, 1);
            }
        }
    }
}
