//! Addresses that nothing here connects to on behalf of a configured name: clouds serve the secrets of their machines at
//! link-local addresses. They are checked after the name was resolved, so no name can lead to them.

use std::net::{IpAddr, Ipv4Addr};

/// Whether it is link-local, serves the metadata of a cloud, or is no address of one host.
pub fn is_forbidden(ip: IpAddr) -> bool {
    /// A metadata address outside the link-local network.
    const METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    let v4 = |ip: Ipv4Addr| ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() || ip == METADATA;
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => v4(ip),
            None => {
                ip.is_unicast_link_local()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.segments()[..3] == [0xfd00, 0xec2, 0]
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_refused() {
        for addr in [
            "169.254.169.254",
            "100.100.100.200",
            "fe80::1",
            "::ffff:169.254.169.254",
            "0.0.0.0",
            "::",
            "fd00:ec2::254",
        ] {
            assert!(is_forbidden(addr.parse().unwrap()), "{addr}");
        }
        for addr in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "192.0.2.1"] {
            assert!(!is_forbidden(addr.parse().unwrap()), "{addr}");
        }
    }
}
