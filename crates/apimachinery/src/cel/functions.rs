//! The functions that Kubernetes adds to CEL: lists, regular expressions, quantities, addresses, URLs, sets.

use std::{cmp::Ordering, net::IpAddr, sync::Arc};

use ::cel::{Context, Env, ExecutionError, Value, extensions, extractors::This, objects::Opaque};
use regex::Regex;

use crate::quantity::Quantity;

type Outcome = Result<Value, ExecutionError>;

fn failed<T>(function: &str, message: impl std::fmt::Display) -> Result<T, ExecutionError> {
    Err(ExecutionError::FunctionError { function: function.to_owned(), message: message.to_string() })
}

/// The standard library with the extensions of CEL that Kubernetes turns on.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib();
    // A clash of names would be one of this crate's releases with itself; the functions then stay absent.
    for extension in [extensions::strings, extensions::lists, extensions::math] {
        let _ = env.add_extension(extension);
    }
    env.set_error_on_duplicate_map_keys(false);
    env
}

#[derive(Debug, PartialEq, Eq)]
struct Amount(Quantity);
impl Opaque for Amount {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.Quantity"
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Ip(IpAddr);
impl Opaque for Ip {
    fn runtime_type_name(&self) -> &str {
        "net.IP"
    }
}

/// A network: its address as written, and the length of its prefix.
#[derive(Debug, PartialEq, Eq)]
struct Cidr(IpAddr, u8);
impl Opaque for Cidr {
    fn runtime_type_name(&self) -> &str {
        "net.CIDR"
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}
impl Opaque for Url {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.URL"
    }
}

fn opaque<T: Opaque + 'static>(value: T) -> Value {
    Value::Opaque(Arc::new(value))
}

fn the<'a, T: 'static>(value: &'a Value, function: &str) -> Result<&'a T, ExecutionError> {
    match value {
        Value::Opaque(inner) => match inner.downcast_ref::<T>() {
            Some(found) => Ok(found),
            None => failed(function, "no such overload"),
        },
        _ => failed(function, "no such overload"),
    }
}

fn text<'a>(value: &'a Value, function: &str) -> Result<&'a str, ExecutionError> {
    match value {
        Value::String(text) => Ok(text.as_str()),
        _ => failed(function, "no such overload"),
    }
}

fn list<'a>(value: &'a Value, function: &str) -> Result<&'a [Value], ExecutionError> {
    match value {
        Value::List(list) => Ok(list.as_slice()),
        _ => failed(function, "no such overload"),
    }
}

fn regex(pattern: &str, function: &str) -> Result<Regex, ExecutionError> {
    match regex::RegexBuilder::new(pattern).size_limit(1 << 20).build() {
        Ok(regex) => Ok(regex),
        Err(error) => failed(function, error),
    }
}

fn parse_cidr(text: &str) -> Option<Cidr> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = parse_ip(address)?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some(Cidr(address, length))
}

/// No zones, no IPv4 inside IPv6.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        other => Some(other),
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

/// An absolute URL or path, as Go's `ParseRequestURI` takes it.
fn parse_url(text: &str) -> Option<Url> {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return None;
    }
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    let owned = |scheme: &str, host: &str, path: &str| Url {
        scheme: scheme.to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    };
    if before.starts_with('/') {
        return Some(owned("", "", before));
    }
    let (scheme, rest) = before.split_once(':')?;
    let mut letters = scheme.bytes();
    let shaped = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
        && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !shaped {
        return None;
    }
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some(owned(&scheme.to_lowercase(), host.rsplit('@').next().unwrap_or(host), path))
}

fn add_all(a: &Value, b: &Value) -> Outcome {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => match a.checked_add(*b) {
            Some(sum) => Ok(Value::Int(sum)),
            None => failed("sum", "integer overflow"),
        },
        (Value::UInt(a), Value::UInt(b)) => match a.checked_add(*b) {
            Some(sum) => Ok(Value::UInt(sum)),
            None => failed("sum", "unsigned integer overflow"),
        },
        (Value::Float(a), Value::Float(b)) => Ok(Value::Float(a + b)),
        (Value::Duration(a), Value::Duration(b)) => match a.checked_add(b) {
            Some(sum) => Ok(Value::Duration(sum)),
            None => failed("sum", "duration overflow"),
        },
        _ => failed("sum", "no such overload"),
    }
}

fn extreme(items: &[Value], wanted: Ordering, function: &str) -> Outcome {
    let Some(first) = items.first() else {
        return failed(function, format!("{function} called on empty list"));
    };
    let mut best = first;
    for item in &items[1..] {
        match item.partial_cmp(best) {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => return failed(function, "no such overload"),
        }
    }
    Ok(best.clone())
}

fn amount(value: &Value, function: &str) -> Result<Quantity, ExecutionError> {
    match value {
        Value::Int(units) => Ok(Quantity::from_units(*units, crate::quantity::Style::Decimal)),
        other => Ok(the::<Amount>(other, function)?.0),
    }
}

fn to_ip(value: &Value, function: &str) -> Result<IpAddr, ExecutionError> {
    match value {
        Value::String(text) => match parse_ip(text) {
            Some(address) => Ok(address),
            None => failed(function, format!("network address parse error: {text:?}")),
        },
        other => Ok(the::<Ip>(other, function)?.0),
    }
}

/// Adds the functions to a context. None of their names is declared in [`environment`].
pub(super) fn add(context: &mut Context<'_, '_>) {
    // An error is a name that the library came to declare itself: then its own function serves.
    let _ = context.add_function("sum", |This(this): This<Value>| -> Outcome {
        let items = list(&this, "sum")?;
        let Some(first) = items.first() else { return Ok(Value::Int(0)) };
        items[1..].iter().try_fold(first.clone(), |sum, item| add_all(&sum, item))
    });
    let _ = context.add_function("min", |This(this): This<Value>| -> Outcome {
        extreme(list(&this, "min")?, Ordering::Less, "min")
    });
    let _ = context.add_function("max", |This(this): This<Value>| -> Outcome {
        extreme(list(&this, "max")?, Ordering::Greater, "max")
    });
    let _ = context.add_function("isSorted", |This(this): This<Value>| -> Outcome {
        let items = list(&this, "isSorted")?;
        Ok(Value::Bool(
            items.windows(2).all(|w| w[0].partial_cmp(&w[1]).is_some_and(|o| o != Ordering::Greater)),
        ))
    });
    let _ = context.add_function("find", |This(this): This<Value>, pattern: Value| -> Outcome {
        let regex = regex(text(&pattern, "find")?, "find")?;
        let found = regex.find(text(&this, "find")?).map_or("", |m| m.as_str()).to_owned();
        Ok(Value::String(Arc::new(found)))
    });
    let _ = context.add_function("findAll", |This(this): This<Value>, pattern: Value| -> Outcome {
        let regex = regex(text(&pattern, "findAll")?, "findAll")?;
        let found = regex.find_iter(text(&this, "findAll")?);
        Ok(Value::List(Arc::new(found.map(|m| Value::String(Arc::new(m.as_str().to_owned()))).collect())))
    });
    add_quantities(context);
    add_addresses(context);
    add_urls(context);
    add_sets(context);
}

fn add_quantities(context: &mut Context<'_, '_>) {
    let _ = context.add_function("quantity", |given: Value| -> Outcome {
        match Quantity::parse(text(&given, "quantity")?) {
            Ok(quantity) => Ok(opaque(Amount(quantity))),
            Err(error) => failed("quantity", error),
        }
    });
    let _ = context.add_function("isQuantity", |given: Value| -> Outcome {
        Ok(Value::Bool(Quantity::parse(text(&given, "isQuantity")?).is_ok()))
    });
    let _ = context.add_function("sign", |This(this): This<Value>| -> Outcome {
        Ok(Value::Int(amount(&this, "sign")?.sign().into()))
    });
    let _ = context.add_function("isInteger", |This(this): This<Value>| -> Outcome {
        Ok(Value::Bool(amount(&this, "isInteger")?.exact_units().is_some()))
    });
    let _ = context.add_function("asInteger", |This(this): This<Value>| -> Outcome {
        match amount(&this, "asInteger")?.exact_units() {
            Some(units) => Ok(Value::Int(units)),
            None => failed("asInteger", "cannot convert value to integer"),
        }
    });
    let _ = context.add_function("asApproximateFloat", |This(this): This<Value>| -> Outcome {
        Ok(Value::Float(amount(&this, "asApproximateFloat")?.to_f64()))
    });
    let _ = context.add_function("add", |This(this): This<Value>, other: Value| -> Outcome {
        Ok(opaque(Amount(amount(&this, "add")?.plus(&amount(&other, "add")?))))
    });
    let _ = context.add_function("sub", |This(this): This<Value>, other: Value| -> Outcome {
        Ok(opaque(Amount(amount(&this, "sub")?.minus(&amount(&other, "sub")?))))
    });
    let _ = context.add_function("isLessThan", |This(this): This<Value>, other: Value| -> Outcome {
        Ok(Value::Bool(amount(&this, "isLessThan")? < amount(&other, "isLessThan")?))
    });
    let _ = context.add_function("isGreaterThan", |This(this): This<Value>, other: Value| -> Outcome {
        Ok(Value::Bool(amount(&this, "isGreaterThan")? > amount(&other, "isGreaterThan")?))
    });
    let _ = context.add_function("compareTo", |This(this): This<Value>, other: Value| -> Outcome {
        let order = amount(&this, "compareTo")?.cmp(&amount(&other, "compareTo")?);
        Ok(Value::Int(order as i64))
    });
}

fn add_addresses(context: &mut Context<'_, '_>) {
    let _ = context.add_function("ip", |This(given): This<Value>| -> Outcome {
        match &given {
            Value::Opaque(_) => Ok(opaque(Ip(the::<Cidr>(&given, "ip")?.0))),
            _ => Ok(opaque(Ip(to_ip(&given, "ip")?))),
        }
    });
    let _ = context.add_function("isIP", |given: Value| -> Outcome {
        Ok(Value::Bool(parse_ip(text(&given, "isIP")?).is_some()))
    });
    let _ = context.add_function("family", |This(this): This<Value>| -> Outcome {
        Ok(Value::Int(if the::<Ip>(&this, "family")?.0.is_ipv4() { 4 } else { 6 }))
    });
    let _ = context.add_function("isLoopback", |This(this): This<Value>| -> Outcome {
        Ok(Value::Bool(the::<Ip>(&this, "isLoopback")?.0.is_loopback()))
    });
    let _ = context.add_function("isUnspecified", |This(this): This<Value>| -> Outcome {
        Ok(Value::Bool(the::<Ip>(&this, "isUnspecified")?.0.is_unspecified()))
    });
    let _ = context.add_function("cidr", |given: Value| -> Outcome {
        let given = text(&given, "cidr")?;
        match parse_cidr(given) {
            Some(cidr) => Ok(opaque(cidr)),
            None => failed("cidr", format!("network address parse error: {given:?}")),
        }
    });
    let _ = context.add_function("isCIDR", |given: Value| -> Outcome {
        Ok(Value::Bool(parse_cidr(text(&given, "isCIDR")?).is_some()))
    });
    let _ = context.add_function("containsIP", |This(this): This<Value>, other: Value| -> Outcome {
        Ok(Value::Bool(the::<Cidr>(&this, "containsIP")?.contains(to_ip(&other, "containsIP")?)))
    });
    let _ = context.add_function("containsCIDR", |This(this): This<Value>, other: Value| -> Outcome {
        let mine = the::<Cidr>(&this, "containsCIDR")?;
        let (address, length) = match &other {
            Value::String(text) => match parse_cidr(text) {
                Some(cidr) => (cidr.0, cidr.1),
                None => return failed("containsCIDR", format!("network address parse error: {text:?}")),
            },
            other => {
                let cidr = the::<Cidr>(other, "containsCIDR")?;
                (cidr.0, cidr.1)
            }
        };
        Ok(Value::Bool(mine.1 <= length && mine.contains(address)))
    });
    let _ = context.add_function("prefixLength", |This(this): This<Value>| -> Outcome {
        Ok(Value::Int(the::<Cidr>(&this, "prefixLength")?.1.into()))
    });
    let _ = context.add_function("masked", |This(this): This<Value>| -> Outcome {
        Ok(opaque(the::<Cidr>(&this, "masked")?.masked()))
    });
}

fn add_urls(context: &mut Context<'_, '_>) {
    let _ = context.add_function("url", |given: Value| -> Outcome {
        let given = text(&given, "url")?;
        match parse_url(given) {
            Some(url) => Ok(opaque(url)),
            None => failed("url", format!("URL parse error during conversion from string: {given:?}")),
        }
    });
    let _ = context.add_function("isURL", |given: Value| -> Outcome {
        Ok(Value::Bool(parse_url(text(&given, "isURL")?).is_some()))
    });
    let part = |pick: fn(&Url) -> String| {
        move |This(this): This<Value>| -> Outcome {
            Ok(Value::String(Arc::new(pick(the::<Url>(&this, "url")?))))
        }
    };
    let _ = context.add_function("getScheme", part(|u| u.scheme.clone()));
    let _ = context.add_function("getHost", part(|u| u.host.clone()));
    let _ = context.add_function("getEscapedPath", part(|u| u.path.clone()));
    let _ = context.add_function(
        "getHostname",
        part(|u| {
            let host = u.host.as_str();
            let bare =
                host.rsplit_once(':').map_or(host, |(h, port)| if port.contains(']') { host } else { h });
            bare.trim_matches(['[', ']']).to_owned()
        }),
    );
    let _ = context.add_function(
        "getPort",
        part(|u| {
            u.host.rsplit_once(':').map_or("", |(_, p)| if p.contains(']') { "" } else { p }).to_owned()
        }),
    );
    let _ = context.add_function("getRawQuery", part(|u| u.query.clone()));
}

fn add_sets(context: &mut Context<'_, '_>) {
    fn within(all: &[Value], some: &[Value]) -> bool {
        some.iter().all(|item| all.contains(item))
    }
    let _ = context.add_function("sets.contains", |a: Value, b: Value| -> Outcome {
        Ok(Value::Bool(within(list(&a, "sets.contains")?, list(&b, "sets.contains")?)))
    });
    let _ = context.add_function("sets.equivalent", |a: Value, b: Value| -> Outcome {
        let (a, b) = (list(&a, "sets.equivalent")?, list(&b, "sets.equivalent")?);
        Ok(Value::Bool(within(a, b) && within(b, a)))
    });
    let _ = context.add_function("sets.intersects", |a: Value, b: Value| -> Outcome {
        let (a, b) = (list(&a, "sets.intersects")?, list(&b, "sets.intersects")?);
        Ok(Value::Bool(a.iter().any(|item| b.contains(item))))
    });
}
