//! What functions give, by their names.

use ::cel::common::ast::operators as op;

use super::types::{Ty, inner};

fn texts() -> Ty {
    Ty::List(Box::new(Ty::String))
}

fn optional(ty: Ty) -> Ty {
    Ty::Optional(Box::new(ty))
}

/// The type of a call; [`Ty::Dyn`] where it is not known.
pub fn result(function: &str, target: Option<&Ty>, args: &[Ty]) -> Ty {
    let a = args.first().unwrap_or(&Ty::Dyn);
    let b = args.get(1).unwrap_or(&Ty::Dyn);
    match function {
        op::EQUALS
        | op::NOT_EQUALS
        | op::LESS
        | op::LESS_EQUALS
        | op::GREATER
        | op::GREATER_EQUALS
        | op::LOGICAL_AND
        | op::LOGICAL_OR
        | op::LOGICAL_NOT
        | op::NOT_STRICTLY_FALSE
        | op::IN
        | "startsWith"
        | "endsWith"
        | "contains"
        | "matches"
        | "isSorted"
        | "bool"
        | "isURL"
        | "isIP"
        | "isCIDR"
        | "isQuantity"
        | "isSemver"
        | "isInteger"
        | "isLessThan"
        | "isGreaterThan"
        | "containsIP"
        | "containsCIDR"
        | "includes"
        | "hasValue"
        | "isCanonical"
        | "equivalent"
        | "intersects"
        | "isLoopback"
        | "isUnspecified"
        | "isGlobalUnicast"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "sets.contains"
        | "sets.equivalent"
        | "sets.intersects"
        | "ip.isCanonical" => Ty::Bool,
        "size" | "int" | "indexOf" | "lastIndexOf" | "family" | "prefixLength" | "sign" | "asInteger"
        | "compareTo" | "getFullYear" | "getMonth" | "getDate" | "getDayOfMonth" | "getDayOfWeek"
        | "getDayOfYear" | "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds" | "major"
        | "minor" | "patch" => Ty::Int,
        "uint" => Ty::Uint,
        "double" | "asApproximateFloat" => Ty::Double,
        "string" | "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring" | "charAt" | "join"
        | "find" | "getScheme" | "getHost" | "getHostname" | "getPort" | "getEscapedPath" => Ty::String,
        "bytes" => Ty::Bytes,
        "duration" => Ty::Duration,
        "timestamp" => Ty::Timestamp,
        "type" => Ty::Type,
        "split" | "findAll" => texts(),
        "url" => Ty::Opaque("kubernetes.URL"),
        "ip" => Ty::Opaque("net.IP"),
        "cidr" | "masked" => Ty::Opaque("net.CIDR"),
        "quantity" => Ty::Opaque("kubernetes.Quantity"),
        "semver" => Ty::Opaque("kubernetes.Semver"),
        "getQuery" => Ty::Map(Box::new(Ty::String), Box::new(texts())),
        "validate" => optional(texts()),
        op::ADD if a == b => a.clone(),
        op::ADD => match (a, b) {
            (Ty::List(x), Ty::List(y)) if **x == Ty::Dyn || **y == Ty::Dyn => {
                Ty::List(if **x == Ty::Dyn { y.clone() } else { x.clone() })
            }
            (Ty::List(_), Ty::List(_)) => Ty::List(Box::new(Ty::Dyn)),
            // What a comprehension has collected so far is of the kind of what it adds.
            (Ty::Dyn, list @ Ty::List(_)) => list.clone(),
            (Ty::Timestamp, Ty::Duration) | (Ty::Duration, Ty::Timestamp) => Ty::Timestamp,
            _ => Ty::Dyn,
        },
        op::SUBSTRACT => match (a, b) {
            (Ty::Timestamp, Ty::Timestamp) => Ty::Duration,
            (a, b) if a == b => a.clone(),
            (Ty::Timestamp, Ty::Duration) => Ty::Timestamp,
            _ => Ty::Dyn,
        },
        op::MULTIPLY | op::DIVIDE | op::MODULO if a == b => a.clone(),
        op::NEGATE => a.clone(),
        op::CONDITIONAL => {
            let other = args.get(2).unwrap_or(&Ty::Dyn);
            match (b, other) {
                (Ty::Dyn, list @ Ty::List(_)) | (list @ Ty::List(_), Ty::Dyn) => list.clone(),
                (b, other) if b == other => b.clone(),
                _ => Ty::Dyn,
            }
        }
        op::INDEX => inner(a),
        op::OPT_INDEX => optional(inner(a)),
        "of" | "ofNonZeroValue" | "optional.of" | "optional.ofNonZeroValue" => optional(a.clone()),
        "none" | "optional.none" => optional(Ty::Dyn),
        "value" | "orValue" | "sum" | "min" | "max" => target.map_or(Ty::Dyn, inner),
        "or" | "sort" | "sortBy" | "distinct" | "slice" | "reverse" => target.cloned().unwrap_or(Ty::Dyn),
        "first" | "last" => target.map_or(Ty::Dyn, |list| optional(inner(list))),
        _ => Ty::Dyn,
    }
}
