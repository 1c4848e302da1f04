//! The greeting over TCP on host sockets.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener};

use ::mio::{Events, Interest, Poll, Token};
use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use socket2::{Domain, Socket, Type};

use super::ready;
use crate::sys::defer_accept;

/// Connections that wait to be accepted, for everybody.
const BACKLOG: i32 = 4_096;

/// One connection after the other. With `defer`, the limit: each is accepted when its greeting is there already, so
/// that no call waits but that for the next connection.
pub fn blocking(at: SocketAddrV4, defer: bool) -> io::Result<Infallible> {
    let listener = listen(at)?;
    if defer {
        defer_accept(&listener, 1)?;
    }
    let mut greeting = [0; 1_024];
    ready()?;
    loop {
        let (mut stream, _) = listener.accept()?;
        if let Ok(1..) = stream.read(&mut greeting) {
            let _ = stream.write_all(b"hi");
        }
    }
}

/// An event loop, as in mio's examples.
pub fn mio(at: SocketAddrV4) -> io::Result<Infallible> {
    const LISTENER: Token = Token(0);
    let listener = listen(at)?;
    listener.set_nonblocking(true)?;
    let mut listener = ::mio::net::TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(128);
    let mut connections = HashMap::new();
    let mut unique = 0;
    let mut greeting = [0; 1_024];
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    ready()?;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => loop {
                    let mut stream = match listener.accept() {
                        Ok((stream, _)) => stream,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    };
                    unique += 1;
                    let token = Token(unique);
                    poll.registry()
                        .register(&mut stream, token, Interest::READABLE)?;
                    connections.insert(token, stream);
                },
                token => {
                    let Some(stream) = connections.get_mut(&token) else {
                        continue;
                    };
                    match stream.read(&mut greeting) {
                        Ok(1..) => {
                            let _ = stream.write(b"hi");
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Ok(0) | Err(_) => {}
                    }
                    connections.remove(&token);
                }
            }
        }
    }
}

/// A task for each connection, all on one thread.
pub fn tokio(at: SocketAddrV4) -> io::Result<Infallible> {
    let listener = listen(at)?;
    listener.set_nonblocking(true)?;
    let runtime = ::tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = ::tokio::net::TcpListener::from_std(listener)?;
        ready()?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            ::tokio::spawn(async move {
                let mut greeting = [0; 1_024];
                if let Ok(1..) = stream.read(&mut greeting).await {
                    let _ = stream.write_all(b"hi").await;
                }
            });
        }
    })
}

fn listen(at: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
