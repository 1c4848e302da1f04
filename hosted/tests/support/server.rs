//! A network that runs in a thread of its own, to be spoken to with blocking sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;

use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::network::{Network, NetworkEvent, Serve, Waker};

/// It runs until this is dropped.
pub struct Server {
    pub addr: SocketAddr,
    /// What happened to the network, each with the number of turns until then.
    pub events: Receiver<(NetworkEvent, u64)>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `make` makes the network, and `set_up` binds its services and says how to serve them.
    pub fn start(
        make: impl FnOnce() -> Network + Send + 'static,
        set_up: impl FnOnce(&mut Network) -> (SocketAddr, Box<Serve<'static>>) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, started) = mpsc::channel();
        let (tell, events) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut network = make();
            let clock = Clock::system();
            let (addr, mut serve) = set_up(&mut network);
            ready.send((addr, network.waker())).unwrap();
            let mut turns = 0;
            while !stopped.load(Ordering::Relaxed) {
                let turn = network.turn(&clock, &mut *serve).unwrap();
                turns += 1;
                while let Some(event) = network.poll_event() {
                    tell.send((event, turns)).unwrap();
                }
                network.wait(&clock, turn.deadline).unwrap();
            }
        });
        let (addr, waker) = started.recv().unwrap();
        Self {
            addr,
            events,
            stop,
            waker,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}
