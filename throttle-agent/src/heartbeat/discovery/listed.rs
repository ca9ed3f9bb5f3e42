//! A file of backends: `address:port`, one a line; what follows a `#` is a comment.

use std::{collections::BTreeSet, net::SocketAddr};

/// Addresses that a file or a name may come to.
pub(super) const MOST: usize = 4_096;

/// The addresses in a file, or what is wrong with it and where. One that lists none is taken for a mistake.
pub(super) fn parse(text: &str) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = BTreeSet::new();
    for (line, number) in text.lines().zip(1..) {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let address: SocketAddr = entry.parse().map_err(|_| {
            let entry: String = entry.chars().take(60).collect();
            format!("line {number}: `{}` is no address and port; write it as in 10.0.0.5:80", entry.escape_debug())
        })?;
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(format!("line {number}: nobody can be connected to at {address}"));
        }
        addresses.insert(address);
        if addresses.len() > MOST {
            return Err(format!("line {number}: more than {MOST} addresses"));
        }
    }
    if addresses.is_empty() {
        return Err("it lists no address; to be without the backend, take it out of the policy".to_owned());
    }
    Ok(addresses.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_and_blank_lines_are_left_out() {
        let text = "# the web\n10.0.0.5:80\n\n  [2001:db8::5]:8080  # the new one\r\n10.0.0.5:80\n";
        let expected = ["10.0.0.5:80", "[2001:db8::5]:8080"].map(|text| text.parse().unwrap());
        assert_eq!(parse(text), Ok(expected.to_vec()));
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let fault = |text: &str| parse(text).unwrap_err();
        assert!(fault("10.0.0.5:80\n10.0.0.6\n").starts_with("line 2: `10.0.0.6` is no address and port"));
        assert!(fault("10.0.0.5:0").contains("10.0.0.5:0"));
        assert!(fault("0.0.0.0:80").starts_with("line 1: nobody"));
        assert!(fault("# nobody\n").contains("no address"));
        let many: Vec<_> = (0..=MOST).map(|n| format!("10.0.{}.{}:80", n >> 8, n & 255)).collect();
        let many = many.join("\n");
        assert!(fault(&many).starts_with("line 4097: more than"), "{}", fault(&many));
    }

    proptest! {
        #[test]
        fn whatever_is_read_was_written(addresses in prop::collection::btree_set((any::<[u8; 4]>(), 1u16..), 1..50)) {
            let written = |&(ip, port): &([u8; 4], u16)| SocketAddr::from((ip, port));
            let is_usable = |address: &SocketAddr| !address.ip().is_unspecified() && !address.ip().is_multicast();
            let expected: Vec<_> = addresses.iter().map(written).filter(is_usable).collect();
            prop_assume!(!expected.is_empty());
            let text = expected.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(parse(&text).unwrap(), expected);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
