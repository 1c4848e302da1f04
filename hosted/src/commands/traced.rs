//! A service around a service, which tells on standard error what goes in and out: what `-v` shows.

use std::net::SocketAddr;

use smoltalk::text::Shown;
use smoltalk::{ConnId, DatagramService, Flow, Instant, Now, StreamService, Transmit, Unreachable};

use crate::commands::count;
use crate::output::Output;

/// How many bytes of a datagram or a piece of a stream are shown: nobody reads 64 KiB on one line.
const MOST_SHOWN: usize = 1024;

/// `inner`, watched.
#[derive(Debug)]
pub struct Traced<'o, S> {
    pub inner: S,
    output: &'o Output,
    label: String,
}

impl<'o, S> Traced<'o, S> {
    /// Tells of `inner` under the name `label`.
    pub fn new(inner: S, output: &'o Output, label: String) -> Self {
        Self {
            inner,
            output,
            label,
        }
    }

    /// Tells how many `bytes` there were, and what was in them.
    fn tell(&self, what: &str, bytes: &[u8], whom: impl std::fmt::Display) {
        if !self.output.verbose {
            return;
        }
        let size = count(bytes.len() as u64, "byte");
        let (shown, more) = match bytes.get(..MOST_SHOWN) {
            Some(beginning) if beginning.len() < bytes.len() => (beginning, "..."),
            _ => (bytes, ""),
        };
        self.output.detail(format_args!(
            "{}: {what} {size} {whom}: {}{more}",
            self.label,
            Shown(shown)
        ));
    }

    fn tell_conn(&self, id: ConnId, what: impl std::fmt::Display) {
        self.output.detail(format_args!(
            "{}: connection {}: {what}",
            self.label,
            id.index()
        ));
    }
}

impl<S: DatagramService> DatagramService for Traced<'_, S> {
    const MAX_DATAGRAM: usize = S::MAX_DATAGRAM;
    type Reject = S::Reject;

    fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), S::Reject> {
        self.tell("received", payload, format_args!("from {from}"));
        let result = self.inner.handle_datagram(now, from, payload);
        if let Err(why) = &result {
            self.output
                .detail(format_args!("{}: rejected: {why}", self.label));
        }
        result
    }

    fn handle_unreachable(&mut self, now: Now, peer: SocketAddr, why: Unreachable) {
        self.output
            .detail(format_args!("{}: {peer}: {why}", self.label));
        self.inner.handle_unreachable(now, peer, why);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.inner.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Now, buf: &mut [u8]) -> Option<Transmit> {
        let transmit = self.inner.poll_transmit(now, buf)?;
        self.tell(
            "sent",
            buf.get(..transmit.len).unwrap_or_default(),
            format_args!("to {}", transmit.to),
        );
        Some(transmit)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }
}

impl<S: StreamService> StreamService for Traced<'_, S> {
    type Reject = S::Reject;

    fn handle_open(&mut self, now: Now, id: ConnId, peer: SocketAddr) -> Result<(), S::Reject> {
        let result = self.inner.handle_open(now, id, peer);
        match &result {
            Ok(()) => self.tell_conn(id, format_args!("open, with {peer}")),
            Err(why) => self.tell_conn(id, format_args!("rejected, with {peer}: {why}")),
        }
        result
    }

    fn handle_data(&mut self, now: Now, id: ConnId, data: &[u8]) -> usize {
        let consumed = self.inner.handle_data(now, id, data);
        let data = data.get(..consumed).unwrap_or(data);
        self.tell(
            "received",
            data,
            format_args!("on connection {}", id.index()),
        );
        consumed
    }

    fn handle_end(&mut self, now: Now, id: ConnId) {
        self.tell_conn(id, "the peer has ended its direction");
        self.inner.handle_end(now, id);
    }

    fn handle_close(&mut self, now: Now, id: ConnId) {
        self.tell_conn(id, "closed");
        self.inner.handle_close(now, id);
    }

    fn poll_write(&mut self, now: Now, id: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        let (len, flow) = self.inner.poll_write(now, id, buf);
        if len > 0 {
            let written = buf.get(..len).unwrap_or_default();
            self.tell(
                "sent",
                written,
                format_args!("on connection {}", id.index()),
            );
        }
        if flow == Flow::Abort {
            self.tell_conn(id, "reset");
        }
        (len, flow)
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        self.inner.poll_ready()
    }

    fn handle_timeout(&mut self, now: Now) {
        self.inner.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }
}
