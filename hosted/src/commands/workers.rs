//! The threads that serve beside the first one: what `serve --workers` adds.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope, ScopedJoinHandle};

use smoltalk::Duration;
use smoltalk_hosted::error::Error;
use smoltalk_hosted::network::{Network, Sharing, TapOptions, Waker};
use smoltalk_hosted::tap::TapDevice;

use super::serve::{Counters, Options, Station, Then, clock, obey};
use crate::cli;
use crate::output::{At, Output};

/// A worker's call stack, in bytes: what the first thread has, as a rule. A listener on a TAP device is made there, with
/// all of its sockets.
const STACK: usize = 8 << 20;

/// How the workers beside the first one get at the network.
#[derive(Debug)]
pub enum Access {
    /// Through host sockets.
    Host(Sharing),
    /// Through the queues of a TAP device, one each.
    Tap {
        /// As many as there will be workers.
        queues: Mutex<Vec<TapDevice>>,
        /// The same for all of them.
        options: TapOptions,
    },
}

impl Access {
    fn open(&self) -> Result<Network, Error> {
        match self {
            Self::Host(sharing) => Network::host_sharing(*sharing),
            Self::Tap { queues, options } => {
                let queue = queues.lock().ok().and_then(|mut queues| queues.pop());
                let queue = queue.ok_or_else(|| Error::failed("more workers than queues"))?;
                Network::on_tap_device(queue, options)
            }
        }
    }
}

/// What a worker is to do.
#[derive(Debug)]
pub struct Worker<'o> {
    pub options: Options,
    pub access: Access,
    pub output: &'o Output,
    pub at: Option<cli::At>,
    /// How long it may take to finish what is in flight.
    pub grace: Duration,
    pub busy_poll: bool,
}

type Worked = Result<Vec<(At<'static>, Counters)>, Error>;

impl Worker<'_> {
    /// Serves until it is told otherwise, and returns what it has counted. `ready` is told when it serves, or why not.
    fn work(&self, orders: &Receiver<Then>, ready: &Sender<Result<Waker, Error>>) -> Worked {
        let bind = || {
            let mut network = self.access.open()?;
            network.set_busy_poll(self.busy_poll);
            let station = Station::bind(&mut network, self.output, &self.options)?;
            Ok((network, station))
        };
        let (mut network, mut station) = match bind() {
            Ok(bound) => bound,
            Err(error) => {
                // Whoever waits for it is told there.
                let _ = ready.send(Err(error));
                return Ok(Vec::new());
            }
        };
        let _ = ready.send(Ok(network.waker()));
        let clock = clock(self.at);
        obey(&mut network, &clock, &mut station, self.grace, || {
            Ok(match orders.try_recv() {
                Ok(then) => Some(then),
                Err(TryRecvError::Empty) => None,
                // Nobody is left to serve for.
                Err(TryRecvError::Disconnected) => Some(Then::End),
            })
        })?;
        Ok(station.counters())
    }
}

/// Workers that serve, until this is dropped or they are told to finish.
#[derive(Debug)]
pub struct Crew<'scope> {
    workers: Vec<Hired<'scope>>,
    failures: Receiver<()>,
}

#[derive(Debug)]
struct Hired<'scope> {
    /// `None`: nobody is left to serve for.
    orders: Option<Sender<Then>>,
    waker: Waker,
    thread: Option<ScopedJoinHandle<'scope, Worked>>,
}

impl<'scope> Crew<'scope> {
    /// Starts `count` workers that are all the same, and returns once they serve. When one of them fails, `boss` is
    /// woken.
    ///
    /// # Errors
    /// One cannot serve: then none does.
    pub fn start<'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        worker: Worker<'env>,
        count: usize,
        boss: &Waker,
    ) -> Result<Self, Error> {
        let worker = Arc::new(worker);
        let (fail, failures) = mpsc::channel();
        let mut crew = Self {
            workers: Vec::new(),
            failures,
        };
        for _ in 0..count {
            let (orders, ordered) = mpsc::channel();
            let (ready, started) = mpsc::channel();
            let (worker, fail, boss) = (Arc::clone(&worker), fail.clone(), boss.clone());
            let work = move || {
                let worked = worker.work(&ordered, &ready);
                if worked.is_err() {
                    let _ = fail.send(());
                    boss.wake();
                }
                worked
            };
            let thread = thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, work)
                .map_err(|error| Error::io("a thread", &error))?;
            let waker = started
                .recv()
                .map_err(|_| Error::failed("a worker ended before it served"))??;
            crew.workers.push(Hired {
                orders: Some(orders),
                waker,
                thread: Some(thread),
            });
        }
        Ok(crew)
    }

    /// Whether a worker has failed since this was asked last.
    pub fn has_failed(&self) -> bool {
        self.failures.try_recv().is_ok()
    }

    /// Lets each finish what is in flight, and end.
    pub fn finish(&self) {
        for worker in &self.workers {
            if let Some(orders) = &worker.orders {
                // It fails where the worker has ended already.
                let _ = orders.send(Then::Finish);
            }
            worker.waker.wake();
        }
    }

    /// Waits until all have ended, and returns what they have counted. Those that were not told to finish end now.
    ///
    /// # Errors
    /// The first of those that they ended with.
    pub fn join(mut self, told_to_finish: bool) -> Worked {
        if !told_to_finish {
            self.dismiss();
        }
        let threads = self.workers.iter_mut().filter_map(|w| w.thread.take());
        let worked: Vec<Worked> = threads
            .map(|thread| match thread.join() {
                Ok(worked) => worked,
                Err(panicked) => std::panic::resume_unwind(panicked),
            })
            .collect();
        let mut all = Vec::new();
        for worked in worked {
            all.extend(worked?);
        }
        Ok(all)
    }

    fn dismiss(&mut self) {
        for worker in &mut self.workers {
            worker.orders = None;
            worker.waker.wake();
        }
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        self.dismiss();
    }
}
