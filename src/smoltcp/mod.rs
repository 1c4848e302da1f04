//! The services on the smoltcp TCP/IP stack.
