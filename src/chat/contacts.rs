//! Who is who: names and their addresses.

use core::error::Error;
use core::fmt;
use core::net::{SocketAddr, SocketAddrV6};

use heapless::{String, Vec};

use crate::text::Shown;

/// The longest name of a contact, in bytes of UTF-8: 10 Chinese characters.
pub const MAX_NAME: usize = 32;

/// Up to `N` contacts, each with a name of its own, at 68 bytes each.
///
/// Contacts are added and never removed, so a [`ContactId`] stays good. Several names may have one address, as
/// all have in the tutorial, where everyone is on one machine: see [`Chat`](super::Chat) for whose a message
/// from there is.
#[derive(Clone, Debug, Default)]
pub struct ContactBook<const N: usize> {
    contacts: Vec<Contact, N>,
}

#[derive(Clone, Debug)]
struct Contact {
    name: String<MAX_NAME, u8>,
    addr: SocketAddr,
}

/// Names one contact of one book. 2 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContactId(u16);

impl ContactId {
    /// The contact's place in its book: 0 for the first that was added.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl<const N: usize> ContactBook<N> {
    const FITS: () = assert!(N <= 1 << 16, "a ContactId names at most 65,536 contacts");

    /// A book without contacts.
    pub const fn new() -> Self {
        let () = Self::FITS;
        Self {
            contacts: Vec::new(),
        }
    }

    /// The tutorial's four contacts, 金老板, 哪吒, egg and yuan, all of them at `addr`.
    ///
    /// Does not compile for a book of less than four.
    pub fn tutorial(addr: SocketAddr) -> Self {
        const { assert!(N >= 4, "the tutorial has four contacts") };
        let mut book = Self::new();
        for name in ["金老板", "哪吒", "egg", "yuan"] {
            // Four different names fit; the address is not looked at, since the caller chose it.
            let _ = book.push(name, addr);
        }
        book
    }

    /// Adds a contact.
    ///
    /// # Errors
    /// The name cannot be used or is taken, the address cannot be sent to, or the book is full. The book is
    /// unchanged.
    pub fn add(&mut self, name: &str, addr: SocketAddr) -> Result<ContactId, ContactError> {
        if name.trim().is_empty() {
            return Err(ContactError::NoName);
        }
        if !Shown(name.as_bytes()).is_verbatim() {
            return Err(ContactError::NameUnprintable);
        }
        if self.find(name).is_some() {
            return Err(ContactError::NameTaken);
        }
        if !is_destination(addr) {
            return Err(ContactError::NoAddress);
        }
        self.push(name, addr)
    }

    fn push(&mut self, name: &str, addr: SocketAddr) -> Result<ContactId, ContactError> {
        let name = String::try_from(name).map_err(|_| ContactError::NameTooLong)?;
        let id = ContactId(self.contacts.len() as u16);
        self.contacts
            .push(Contact {
                name,
                addr: canonical(addr),
            })
            .map_err(|_| ContactError::Full { capacity: N })?;
        Ok(id)
    }

    /// The contact with that name, written exactly so.
    pub fn find(&self, name: &str) -> Option<ContactId> {
        self.iter()
            .find(|(_, taken, _)| *taken == name)
            .map(|(id, ..)| id)
    }

    /// The name of a contact. It is safe to show.
    ///
    /// # Panics
    /// If `id` is another book's and this one is shorter.
    pub fn name(&self, id: ContactId) -> &str {
        &self.contacts[id.index()].name
    }

    /// The address of a contact.
    ///
    /// # Panics
    /// If `id` is another book's and this one is shorter.
    pub fn addr(&self, id: ContactId) -> SocketAddr {
        self.contacts[id.index()].addr
    }

    /// Whether `id` is that of a contact in this book.
    pub fn contains(&self, id: ContactId) -> bool {
        id.index() < self.contacts.len()
    }

    /// All contacts, in the order in which they were added.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (ContactId, &str, SocketAddr)> {
        self.contacts
            .iter()
            .enumerate()
            .map(|(index, contact)| (ContactId(index as u16), &*contact.name, contact.addr))
    }
}

/// Whether `addr` names a place to send to: port 0 is none (RFC 768), and the unspecified address is none
/// (RFC 1122, section 3.2.1.3; RFC 4291, section 2.5.2).
pub(super) fn is_destination(addr: SocketAddr) -> bool {
    addr.port() != 0 && !addr.ip().is_unspecified()
}

/// `addr` without what does not tell one peer from another: IPv6's mapped form of an IPv4 address and the flow
/// label, which [`SocketAddr`] compares too. The zone of a link-local address stays.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match (addr.ip().to_canonical(), addr) {
        (core::net::IpAddr::V6(ip), SocketAddr::V6(v6)) => {
            SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into()
        }
        (ip, _) => SocketAddr::new(ip, addr.port()),
    }
}

/// Why a contact could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactError {
    /// The book has no room for another.
    Full {
        /// How many contacts it holds.
        capacity: usize,
    },
    /// Another contact has that name.
    NameTaken,
    /// The name is empty, or nothing but white space.
    NoName,
    /// The name has more than [`MAX_NAME`] bytes.
    NameTooLong,
    /// The name has characters that cannot be shown as they are: see [`Shown`].
    NameUnprintable,
    /// Nothing can be sent to port 0, or to the unspecified address (`0.0.0.0`, `[::]`).
    NoAddress,
}

impl fmt::Display for ContactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { capacity } => write!(f, "all {capacity} places for contacts are taken"),
            Self::NameTaken => f.write_str("another contact has that name"),
            Self::NoName => f.write_str("a contact needs a name"),
            Self::NameTooLong => write!(f, "a name has at most {MAX_NAME} bytes"),
            Self::NameUnprintable => f.write_str("the name has characters that cannot be shown"),
            Self::NoAddress => f.write_str("nothing can be sent to that address"),
        }
    }
}

impl Error for ContactError {}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_tutorials_four_share_an_address() {
        let here = addr("127.0.0.1:8081");
        let book = ContactBook::<4>::tutorial(here);
        let all: Vec<_> = book.iter().map(|(_, name, addr)| (name, addr)).collect();
        assert_eq!(
            all,
            [
                ("金老板", here),
                ("哪吒", here),
                ("egg", here),
                ("yuan", here)
            ]
        );
        let id = book.find("哪吒").unwrap();
        assert_eq!(
            (id.index(), book.name(id), book.addr(id)),
            (1, "哪吒", here)
        );
        assert_eq!(book.find("Egg"), None);
    }

    #[test]
    fn a_full_book_says_so_and_keeps_what_it_has() {
        let mut book = ContactBook::<2>::new();
        let one = book.add("one", addr("192.0.2.1:8081")).unwrap();
        let two = book.add("two", addr("192.0.2.1:8081")).unwrap();
        assert_eq!(
            book.add("three", addr("192.0.2.1:8081")),
            Err(ContactError::Full { capacity: 2 })
        );
        assert_eq!((book.find("one"), book.find("two")), (Some(one), Some(two)));
        assert_eq!(book.iter().count(), 2);
        assert_eq!(
            ContactBook::<0>::new().add("one", addr("192.0.2.1:8081")),
            Err(ContactError::Full { capacity: 0 })
        );
    }

    #[test]
    fn bad_names_and_addresses_are_refused() {
        let mut book = ContactBook::<4>::new();
        let good = addr("192.0.2.1:8081");
        book.add("egg", good).unwrap();
        let longest = "十个汉字的名字也能用01";
        assert_eq!(longest.len(), MAX_NAME);
        for (name, to, why) in [
            ("", good, ContactError::NoName),
            (" \u{3000}", good, ContactError::NoName),
            ("egg", good, ContactError::NameTaken),
            ("e\x1b[31mgg", good, ContactError::NameUnprintable),
            ("e\ngg", good, ContactError::NameUnprintable),
            ("\u{202e}gge", good, ContactError::NameUnprintable),
            ("egg\u{200b}", good, ContactError::NameUnprintable),
            ("十个汉字的名字也能用012", good, ContactError::NameTooLong),
            ("yuan", addr("192.0.2.1:0"), ContactError::NoAddress),
            ("yuan", addr("0.0.0.0:8081"), ContactError::NoAddress),
            ("yuan", addr("[::]:8081"), ContactError::NoAddress),
        ] {
            assert_eq!(book.add(name, to), Err(why), "{name:?} {to}");
        }
        assert_eq!(book.iter().count(), 1);
        book.add(longest, good).unwrap();
    }

    #[test]
    fn one_peer_has_one_address() {
        let mut v6 = SocketAddrV6::new("fe80::1".parse().unwrap(), 8081, 7, 2);
        let with_flow = canonical(v6.into());
        v6.set_flowinfo(0);
        assert_eq!(with_flow, v6.into());
        v6.set_scope_id(3);
        assert_ne!(with_flow, v6.into());
        assert_eq!(
            canonical(addr("[::ffff:192.0.2.1]:8081")),
            addr("192.0.2.1:8081")
        );
    }
}
