//! What a driver says of itself: its name, and which offloads are on (include/uapi/linux/ethtool.h).

use std::{io, os::fd::AsRawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Commands and sets of strings.
const GET_DRIVER: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_SET_SIZE: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const FEATURES: u32 = 4;
/// Bytes of a string in a set.
const STRING: usize = 32;

/// `struct ifreq`, as SIOCETHTOOL reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u32,
    rest: [u64; 2],
}

/// Asks with a buffer whose first word is the command; the kernel fills the rest.
fn ask(interface: &str, buffer: &mut [u32]) -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: buffer.as_mut_ptr(), rest: [0; 2] };
    if interface.len() >= request.name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    // SAFETY: the name ends in a zero by the line above; the callers' buffers have room for what their command writes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The driver's name.
pub(super) fn driver(interface: &str) -> Option<String> {
    // `struct ethtool_drvinfo`: the command, then strings of 32 bytes, the driver's name first; 196 bytes.
    let mut buffer = [0; 49];
    buffer[0] = GET_DRIVER;
    ask(interface, &mut buffer).ok()?;
    Some(string(&buffer[1..=STRING / 4])).filter(|name| !name.is_empty())
}

/// The names of the offloads that are on, as `ethtool -k` has them in its source.
pub(super) fn features(interface: &str) -> io::Result<Vec<String>> {
    // `struct ethtool_sset_info`: command, reserved, a mask of sets in 64 bits, then a size for each.
    let mut size = [GET_SET_SIZE, 0, 1 << FEATURES, 0, 0];
    ask(interface, &mut size)?;
    let count = size[4] as usize;
    // `struct ethtool_gstrings`: command, set, number, then the strings.
    let mut strings = vec![0; 3 + count * STRING / 4];
    (strings[0], strings[1], strings[2]) = (GET_STRINGS, FEATURES, count as u32);
    ask(interface, &mut strings)?;
    // `struct ethtool_gfeatures`: command, number of blocks, then blocks of available, requested, active, never changed.
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + blocks * 4];
    (features[0], features[1]) = (GET_FEATURES, blocks as u32);
    ask(interface, &mut features)?;
    let active = |place: usize| features[2 + place / 32 * 4 + 2] & (1 << (place % 32)) != 0;
    let names = strings[3..].chunks_exact(STRING / 4).enumerate();
    Ok(names.filter(|(place, _)| active(*place)).map(|(_, name)| string(name)).collect())
}

fn string(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_offloads() {
        assert!(features("lo").unwrap().iter().any(|name| name == "loopback"), "{:?}", features("lo"));
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_driver() {
        assert_eq!(driver("nothing-here"), None);
        assert_eq!(driver("a name that is far too long"), None);
    }
}
