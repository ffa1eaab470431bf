//! What Kubernetes' own functions cost.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/cost.go`.

use ::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators as op};

use super::{
    Ty,
    cost::{ANY, Coster, PATTERN, Range, TEXT},
    types::inner,
};

impl Coster<'_> {
    /// What Kubernetes' own functions cost, without what they are given.
    pub(super) fn extension(
        &mut self,
        call: &CallExpr,
        target: Option<&IdedExpr>,
    ) -> Option<(Range, Option<Range>)> {
        let one = Range::of(1);
        let args = call.args.as_slice();
        match (call.func_name.as_str(), target, args) {
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes", Some(of), _) => {
                let size = self.size_or_any(of);
                let Ty::List(items) = self.types.get(of).clone() else {
                    let includes = call.func_name == "includes";
                    return Some((if includes { size } else { size.scaled(TEXT) }, None));
                };
                let each = if matches!(*items, Ty::String | Ty::Bytes) {
                    one.plus(self.items(of).scaled(TEXT))
                } else {
                    one
                };
                Some((size.times(each), None))
            }
            ("url", None, [text]) => {
                let size = self.size_or_any(text);
                Some((size.scaled(TEXT), Some(size)))
            }
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _) => {
                let size = self.size_or_any(text);
                Some((size.scaled(TEXT), Some(size)))
            }
            ("replace", Some(text), [from, to, ..]) => {
                let (size, from, to) = (self.size_or_any(text), self.size_or_any(from), self.size_or_any(to));
                Some((size.scaled(2.0 * TEXT), Some(replaced(size, from, to))))
            }
            ("split", Some(text), _) => {
                let size = self.size_or_any(text);
                let limit = match args.get(1).map(|arg| &arg.expr) {
                    Some(Expr::Literal(LiteralValue::Int(limit))) => u64::try_from(*limit.inner()).ok(),
                    _ => None,
                };
                let made = Range { min: 0, max: limit.unwrap_or(size.max) };
                Some((size.scaled(2.0 * TEXT), Some(made)))
            }
            ("join", Some(of), _) => {
                let count = self.size_or_any(of);
                let mut size = match self.types.get(of) {
                    Ty::List(_) => count.times(self.items(of)),
                    _ => Range::of(0),
                };
                if let Some(between) = args.first() {
                    let gaps = Range { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
                    size = size.plus(self.size_or_any(between).times(gaps));
                }
                Some((size.scaled(TEXT), Some(size)))
            }
            ("find" | "findAll", Some(text), [pattern, ..]) => {
                let size = self.size_or_any(text);
                let cost = size.plus(one).scaled(TEXT).times(self.size_or_any(pattern).scaled(PATTERN));
                Some((cost, Some(Range { min: 0, max: size.max })))
            }
            ("ip", Some(_), _) => Some((one, None)),
            (
                "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver",
                None,
                [text, ..],
            ) => Some((self.size_or_any(text).scaled(TEXT), None)),
            ("isCanonical" | "ip.isCanonical", None, [text, ..]) => {
                Some((self.size_or_any(text).scaled(2.0 * TEXT), None))
            }
            ("containsIP" | "containsCIDR", Some(_), [other]) => {
                let bytes = Range { min: 4, max: 16 };
                let mut cost = bytes.plus(bytes).scaled(TEXT);
                if call.func_name == "containsCIDR" {
                    cost = cost.plus(bytes.scaled(TEXT)).plus(one);
                }
                if matches!(self.types.get(other), Ty::String | Ty::Dyn) {
                    cost = cost.plus(self.size_or_any(other).scaled(TEXT));
                }
                Some((cost, None))
            }
            ("validate", _, [text, ..]) => {
                Some((self.size_or_any(text).scaled(TEXT).scaled(128.0 * PATTERN), None))
            }
            (
                "masked"
                | "prefixLength"
                | "family"
                | "isUnspecified"
                | "isLoopback"
                | "isLinkLocalMulticast"
                | "isLinkLocalUnicast"
                | "isGlobalUnicast"
                | "sign"
                | "asInteger"
                | "isInteger"
                | "asApproximateFloat"
                | "isGreaterThan"
                | "isLessThan"
                | "compareTo"
                | "add"
                | "sub"
                | "major"
                | "minor"
                | "patch"
                | "getScheme"
                | "getHostname"
                | "getHost"
                | "getPort"
                | "getEscapedPath"
                | "getQuery",
                _,
                _,
            ) => Some((one, None)),
            (op::EQUALS, None, [a, b]) => match (self.types.get(a), self.types.get(b)) {
                (Ty::Opaque(a), Ty::Opaque(b)) if a == b && *a != "kubernetes.URL" => Some((one, None)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The size of the items of a list, as far as its schema tells.
    fn items(&mut self, list: &IdedExpr) -> Range {
        let mut path = self.path(list);
        if path.is_empty() || path.first().is_some_and(|first| first == "@result") {
            return if inner(self.types.get(list)).is_scalar() { Range::of(1) } else { ANY };
        }
        path.push("@items".to_owned());
        self.declared(&path).unwrap_or(ANY)
    }
}

/// The size of a text in which every `from` became `to`.
fn replaced(size: Range, from: Range, to: Range) -> Range {
    let mut count = Range::of(0);
    let mut kept = Range::of(0);
    if from.min == 0 {
        (count.max, kept.max) = (size.max.saturating_add(1), size.max);
    } else if to.max <= from.min {
        kept.max = size.max;
    } else {
        count.max = size.max.div_ceil(from.min);
    }
    if from.max == 0 {
        (count.min, kept.min) = (size.min.saturating_add(1), size.min);
    } else if from.max <= to.min {
        kept.min = size.min;
    } else {
        count.min = size.min.div_ceil(from.max);
    }
    count.times(to).plus(kept)
}
