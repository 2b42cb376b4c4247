//! The model's time, injected so that a test can move it by itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use super::pacer::BURST;

pub(super) type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) trait Time: Send + Sync + fmt::Debug {
    /// Never goes back, and is at least [`BURST`]: a pacer looks that far back.
    fn now(&self) -> Duration;
    /// Returns at once if `moment` has passed.
    fn sleep_until(&self, moment: Duration) -> Sleep;
}

/// The time of tokio's runtime.
#[derive(Debug)]
pub(super) struct RuntimeTime {
    origin: Instant,
}

impl RuntimeTime {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Time for RuntimeTime {
    fn now(&self) -> Duration {
        self.origin.elapsed() + BURST
    }

    fn sleep_until(&self, moment: Duration) -> Sleep {
        Box::pin(tokio::time::sleep_until(self.origin + moment.saturating_sub(BURST)))
    }
}

/// Time that stands still until the test moves it to where the next sleeper wakes.
#[cfg(test)]
pub(crate) mod stepped {
    use std::sync::{Arc, Mutex};
    use std::task::{Poll, Waker};

    use super::*;

    /// The time, and who sleeps until when.
    #[derive(Debug, Default)]
    struct Stepped(Duration, Vec<(Duration, Waker)>);

    #[derive(Debug, Clone, Default)]
    pub(crate) struct SteppedTime(Arc<Mutex<Stepped>>);

    impl SteppedTime {
        /// Wakes who sleeps for the shortest time, and those who wake at the same moment; false if
        /// nobody sleeps.
        pub(crate) fn step(&self) -> bool {
            let mut state = self.0.lock().unwrap();
            let Some(next) = state.1.iter().map(|(moment, _)| *moment).min() else { return false };
            state.0 = state.0.max(next);
            let (woken, asleep): (Vec<_>, _) = state.1.drain(..).partition(|(moment, _)| *moment <= next);
            state.1 = asleep;
            drop(state);
            woken.into_iter().for_each(|(_, waker)| waker.wake());
            true
        }

        pub(crate) fn elapsed(&self) -> Duration {
            self.0.lock().unwrap().0
        }
    }

    impl Time for SteppedTime {
        fn now(&self) -> Duration {
            self.elapsed() + BURST
        }

        fn sleep_until(&self, moment: Duration) -> Sleep {
            let time = self.clone();
            Box::pin(std::future::poll_fn(move |context| {
                if time.now() >= moment {
                    return Poll::Ready(());
                }
                time.0.lock().unwrap().1.push((moment - BURST, context.waker().clone()));
                Poll::Pending
            }))
        }
    }
}

/// Time that stands still until everyone sleeps, and then goes on to the next who wakes.
#[cfg(test)]
pub(super) mod simulated {
    use std::collections::BTreeSet;
    use std::pin::pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[derive(Debug, Clone, Default)]
    pub(in super::super) struct SimulatedTime(Arc<Mutex<(Duration, BTreeSet<Duration>)>>);

    impl SimulatedTime {
        pub(in super::super) fn run<F: Future>(&self, future: F) -> F::Output {
            let mut future = pin!(future);
            let mut context = Context::from_waker(Waker::noop());
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    return output;
                }
                let mut state = self.0.lock().unwrap();
                state.0 = state.1.pop_first().expect("a future that waits for time, and for nothing else");
            }
        }
    }

    impl Time for SimulatedTime {
        fn now(&self) -> Duration {
            self.0.lock().unwrap().0 + BURST
        }

        fn sleep_until(&self, moment: Duration) -> Sleep {
            let time = self.clone();
            Box::pin(std::future::poll_fn(move |_| {
                if time.now() >= moment {
                    return Poll::Ready(());
                }
                time.0.lock().unwrap().1.insert(moment - BURST);
                Poll::Pending
            }))
        }
    }
}
