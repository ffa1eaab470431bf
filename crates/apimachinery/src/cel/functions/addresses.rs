//! Addresses and networks: `ip`, `cidr` and what they can do.

use std::{net::IpAddr, sync::LazyLock};

use ::cel::{
    ExecutionError,
    common::{
        types::{STRING_TYPE, Type},
        value::CowVal,
    },
    objects::Opaque,
};

use super::{Library, failed, give, give_text, held, hold, text};

static IP: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type("net.IP"));
static CIDR: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type("net.CIDR"));

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ip(IpAddr);

impl Opaque for Ip {
    fn runtime_type_name(&self) -> &str {
        "net.IP"
    }
}

/// A network: its address as written, and the length of its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cidr(IpAddr, u8);

impl Opaque for Cidr {
    fn runtime_type_name(&self) -> &str {
        "net.CIDR"
    }
}

/// No zones, no IPv4 inside IPv6.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if let Some((_, zone)) = text.split_once('%')
        && text.contains(':')
        && !zone.is_empty()
    {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    match text.parse() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let broken = || {
        format!(
            "network address parse error during conversion from string: network address parse error during conversion \
             from string: netip.ParsePrefix({text:?}): no '/'"
        )
    };
    let (address, length) = text.split_once('/').ok_or_else(broken)?;
    let address = parse_ip(address)?;
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) && !length.starts_with("00");
    match length.parse::<u8>() {
        Ok(length) if plain && length <= widest => Ok(Cidr(address, length)),
        _ => Err(format!(
            "network address parse error during conversion from string: network address parse error during conversion \
             from string: netip.ParsePrefix({text:?}): prefix length out of range"
        )),
    }
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

impl Cidr {
    fn contains(&self, address: IpAddr) -> bool {
        let ((mine, width), (other, other_width)) = (bits(self.0), bits(address));
        let shift = u32::from(width - self.1);
        width == other_width && mine.checked_shr(shift) == other.checked_shr(shift)
    }

    fn holds(&self, other: &Self) -> bool {
        self.1 <= other.1 && self.contains(other.0)
    }

    fn masked(&self) -> Self {
        let (value, width) = bits(self.0);
        let shift = u32::from(width - self.1);
        let value = value.checked_shr(shift).and_then(|v| v.checked_shl(shift)).unwrap_or(0);
        let address = match self.0 {
            // An IPv4 address has no bits beyond 32.
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(value).unwrap_or_default().into()),
            IpAddr::V6(_) => IpAddr::V6(value.into()),
        };
        Self(address, self.1)
    }
}

fn ip(given: &[CowVal<'_, '_>], at: usize) -> Result<IpAddr, ExecutionError> {
    parse_ip(text(given, at)?).or_else(|error| failed("ip", error))
}

fn cidr(given: &[CowVal<'_, '_>], at: usize) -> Result<Cidr, ExecutionError> {
    parse_cidr(text(given, at)?).or_else(|error| failed("cidr", error))
}

pub(super) fn add(library: &mut Library) {
    library.global("ip", &[&STRING_TYPE], |given| hold(Ip(ip(&given, 0)?)));
    library.global("isIP", &[&STRING_TYPE], |given| give(parse_ip(text(&given, 0)?).is_ok()));
    library.global("ip.isCanonical", &[&STRING_TYPE], |given| {
        give(ip(&given, 0)?.to_string() == text(&given, 0)?)
    });
    library.global("string", &[&IP], |given| give_text(held::<Ip>(&given, 0)?.0.to_string()));
    library
        .member("family", &IP, &[], |given| give(if held::<Ip>(&given, 0)?.0.is_ipv4() { 4i64 } else { 6 }));
    library.member("isUnspecified", &IP, &[], |given| give(held::<Ip>(&given, 0)?.0.is_unspecified()));
    library.member("isLoopback", &IP, &[], |given| give(held::<Ip>(&given, 0)?.0.is_loopback()));
    library.member("isLinkLocalMulticast", &IP, &[], |given| {
        give(is_link_local_multicast(held::<Ip>(&given, 0)?.0))
    });
    library.member("isLinkLocalUnicast", &IP, &[], |given| {
        give(is_link_local_unicast(held::<Ip>(&given, 0)?.0))
    });
    library.member("isGlobalUnicast", &IP, &[], |given| give(is_global_unicast(held::<Ip>(&given, 0)?.0)));

    library.global("cidr", &[&STRING_TYPE], |given| hold(cidr(&given, 0)?));
    library.global("isCIDR", &[&STRING_TYPE], |given| give(parse_cidr(text(&given, 0)?).is_ok()));
    library.global("string", &[&CIDR], |given| {
        let Cidr(address, length) = held(&given, 0)?;
        give_text(format!("{address}/{length}"))
    });
    library.member("containsIP", &CIDR, &[&STRING_TYPE], |given| {
        give(held::<Cidr>(&given, 0)?.contains(ip(&given, 1)?))
    });
    library.member("containsIP", &CIDR, &[&IP], |given| {
        give(held::<Cidr>(&given, 0)?.contains(held::<Ip>(&given, 1)?.0))
    });
    library.member("containsCIDR", &CIDR, &[&STRING_TYPE], |given| {
        give(held::<Cidr>(&given, 0)?.holds(&cidr(&given, 1)?))
    });
    library.member("containsCIDR", &CIDR, &[&CIDR], |given| {
        give(held::<Cidr>(&given, 0)?.holds(&held(&given, 1)?))
    });
    library.member("ip", &CIDR, &[], |given| hold(Ip(held::<Cidr>(&given, 0)?.0)));
    library.member("prefixLength", &CIDR, &[], |given| give(i64::from(held::<Cidr>(&given, 0)?.1)));
    library.member("masked", &CIDR, &[], |given| hold(held::<Cidr>(&given, 0)?.masked()));
}

/// 224.0.0.0/24 or ff02::/16.
fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

/// 169.254.0.0/16 or fe80::/10.
fn is_link_local_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Neither unspecified, broadcast, loopback, multicast nor link-local: Go's `netip.Addr.IsGlobalUnicast`.
fn is_global_unicast(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(broadcast
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || is_link_local_unicast(address))
}
