//! The messages of grpc.health.v1, as protocol buffers have them: small enough to be written and read by hand.

use bytes::{BufMut as _, Bytes, BytesMut};

/// The call.
pub(super) const METHOD: &str = "/grpc.health.v1.Health/Check";
/// The health of who serves.
pub(super) const SERVING: u64 = 1;

/// The key of field 1 where it is of variable length: a string.
const FIRST_BYTES: u8 = 1 << 3 | 2;
/// The key of field 1 where it is a number.
const FIRST_NUMBER: u64 = 1 << 3;

/// `HealthCheckRequest { service }` as a message of gRPC: a byte for no compression, the length, the message.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(FIRST_BYTES);
        put_number(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// The status in a `HealthCheckResponse`; `None` where it is none.
pub(super) fn read(framed: &[u8]) -> Option<u64> {
    let (head, mut message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || message.len() != usize::try_from(length).ok()? {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = number(&mut message)?;
        match key & 7 {
            0 => {
                let value = number(&mut message)?;
                status = if key == FIRST_NUMBER { value } else { status };
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(number(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_number(to: &mut BytesMut, mut number: u64) {
    while number > 0x7f {
        to.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8(number as u8);
}

fn number(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_what_the_specification_says() {
        assert_eq!(request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn the_status_is_read_wherever_it_stands() {
        assert_eq!(read(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(read(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(read(&[0, 0, 0, 0, 0]), Some(0), "protocol buffers leave a zero out");
        assert_eq!(read(&[0, 0, 0, 0, 7, 0x12, 1, b'x', 0x1d, 1, 2, 3]), None, "shorter than it says");
        assert_eq!(read(&[0, 0, 0, 0, 10, 0x12, 1, b'x', 0x1d, 1, 2, 3, 4, 0x08, 1]), Some(SERVING), "unknown fields");
        assert_eq!(read(&[1, 0, 0, 0, 2, 0x08, 1]), None, "compressed, which was not asked for");
        assert_eq!(read(&[0, 0, 0, 0, 3, 0x08, 1]), None);
    }

    proptest! {
        #[test]
        fn nothing_that_is_answered_panics(bytes: Vec<u8>) {
            read(&bytes);
        }
    }
}
