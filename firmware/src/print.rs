//! What is printed, in as few forms as will do: each type that is formatted brings its own code from the core
//! library, and together they took more flash than a service.

use core::fmt::{self, Write as _};
use core::net::SocketAddr;

use smoltalk::{Wall, time};

/// Text as it is, without the code that pads it.
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A counter in the one width that is printed. After 2,147,483,647 it begins again.
pub fn count(count: impl Into<u64>) -> Number {
    const MASK: u64 = i32::MAX as u64;
    Number((count.into() & MASK) as i32)
}

/// A whole number in decimal digits, without the code of the core library that pads it.
#[derive(Clone, Copy)]
pub struct Number(pub i32);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut rest = self.0.unsigned_abs();
        let mut text = [0; 10];
        let mut at = text.len();
        loop {
            at -= 1;
            text[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return f.write_str(core::str::from_utf8(&text[at..]).unwrap_or_default());
            }
        }
    }
}

/// A word of memory, in all its hexadecimal digits.
pub struct Hex(pub u32);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        for shift in (0..8).rev() {
            let digit = char::from_digit(self.0 >> (4 * shift) & 0xf, 16);
            f.write_char(digit.unwrap_or('?'))?;
        }
        Ok(())
    }
}

/// An address with a port, unless that is 0. Without the code for those of IPv6 if there are none.
pub struct At(pub SocketAddr);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SocketAddr::V4(at) => {
                let [a, b, c, d] = at.ip().octets().map(|octet| Number(octet.into()));
                write!(f, "{a}.{b}.{c}.{d}")?;
            }
            #[cfg(feature = "ipv6")]
            SocketAddr::V6(at) => write!(f, "[{}]", at.ip())?,
            #[cfg(not(feature = "ipv6"))]
            SocketAddr::V6(_) => {}
        }
        match i32::from(self.0.port()) {
            0 => Ok(()),
            port => write!(f, ":{}", Number(port)),
        }
    }
}

/// A date and a time.
pub struct Date(pub Wall);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 40];
        let len = time::format("%Y-%m-%d %X %Z", &self.0, &mut text).unwrap_or(0);
        f.write_str(core::str::from_utf8(&text[..len]).unwrap_or_default())
    }
}
