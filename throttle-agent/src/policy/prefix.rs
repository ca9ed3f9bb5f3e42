//! An address or a CIDR prefix as people write it.

use super::{fault::Fault, text::written_as_text};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{fmt, net::IpAddr, str::FromStr};

/// An IPv4 or IPv6 prefix without host bits. A single address is written without its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(IpNet);

impl Prefix {
    /// The prefix as a network.
    pub fn net(self) -> IpNet {
        self.0
    }

    /// Whether it is all of its family.
    pub fn is_everything(self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl From<IpNet> for Prefix {
    /// Host bits are cleared.
    fn from(net: IpNet) -> Self {
        Self(net.trunc())
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self(address.into())
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl FromStr for Prefix {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let wrong = |reason: &str| {
            Fault::new(
                format!("`{text}` {reason}"),
                "write an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32",
            )
        };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong("is no IP address or prefix"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(length) => length
                .parse()
                .ok()
                .filter(|&length| length <= longest)
                .ok_or_else(|| wrong(&format!("has a prefix length that is no number from 0 to {longest}")))?,
        };
        let net = match address {
            IpAddr::V4(address) => IpNet::V4(Ipv4Net::new_assert(address, length)),
            IpAddr::V6(address) => IpNet::V6(Ipv6Net::new_assert(address, length)),
        };
        if let IpAddr::V6(address) = address
            && let Some(mapped) = address.to_ipv4_mapped()
        {
            let short = Self(Ipv4Net::new_assert(mapped, length.saturating_sub(96)).trunc().into());
            let reason = format!("`{text}` is IPv4 within IPv6, which no packet carries as its address");
            return Err(Fault::new(reason, format!("write {short}")));
        }
        if net.addr() != net.network() {
            let reason = format!("`{text}` has bits set beyond its length");
            let (network, host) = (Self(net.trunc()), Self(address.into()));
            return Err(Fault::new(reason, format!("write {network} for the network or {host} for the host")));
        }
        Ok(Self(net))
    }
}

written_as_text!(Prefix, "192.0.2.0/24");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_reads_back(address in any::<IpAddr>(), length in 0u8..=128) {
            let length = length.min(if address.is_ipv4() { 32 } else { 128 });
            let prefix = Prefix::from(IpNet::new(address, length).unwrap());
            let mapped = matches!(prefix.net(), IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some());
            prop_assume!(!mapped);
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }

    #[test]
    fn each_mistake_is_named_with_its_remedy() {
        let fault = |text: &str| text.parse::<Prefix>().unwrap_err().to_string();
        assert!(fault("192.0.2.1/24").ends_with("write 192.0.2.0/24 for the network or 192.0.2.1 for the host"));
        assert!(fault("192.0.2.0/33").contains("no number from 0 to 32"));
        assert!(fault("example.org").contains("is no IP address"));
        assert!(fault("::ffff:192.0.2.7").ends_with("write 192.0.2.7"));
    }
}
