//! The headers in which a server that is trusted tells another one who asks: `X-Remote-User`, `-Group`, `-Uid` and
//! `-Extra-*`.
//!
//! Source: `k8s.io/client-go/transport/round_trippers.go` (`SetAuthProxyHeaders`).

use access::UserInfo;
use apimachinery::ApiError;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

pub const USER: &str = "x-remote-user";
pub const GROUP: &str = "x-remote-group";
pub const UID: &str = "x-remote-uid";
pub const EXTRA: &str = "x-remote-extra-";

/// What is not a token character of RFC 7230, and the percent sign.
const KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Takes away what a caller says about itself.
pub fn strip(headers: &mut HeaderMap) {
    let said: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in said {
        headers.remove(name);
    }
}

/// Says who the caller is. A name that no header can hold is an error: nobody may become somebody else by it.
pub fn write(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), ApiError> {
    strip(headers);
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(ApiError::internal);
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let key = format!("{EXTRA}{}", utf8_percent_encode(&key.to_lowercase(), KEY));
        let key: HeaderName = key.parse().map_err(ApiError::internal)?;
        for one in values {
            headers.append(key.clone(), value(one)?);
        }
    }
    Ok(())
}

/// Reads who the caller is; `None` if nobody is named.
pub fn read(headers: &HeaderMap) -> Option<UserInfo> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let name = headers.get(USER).map(text).filter(|name| !name.is_empty())?;
    let mut user = UserInfo { name, ..UserInfo::default() };
    user.uid = headers.get(UID).map(text).unwrap_or_default();
    user.groups = headers.get_all(GROUP).iter().map(text).collect();
    for (key, value) in headers {
        if let Some(key) = key.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            user.extra.entry(key).or_default().push(text(value));
        }
    }
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jane() -> UserInfo {
        let mut user = UserInfo { name: "jane".to_owned(), uid: "7".to_owned(), ..UserInfo::default() };
        user.groups = vec!["dev".to_owned(), "ops".to_owned()];
        user.extra.insert("example.com/a b".to_owned(), vec!["1".to_owned(), "2".to_owned()]);
        user
    }

    #[test]
    fn who_is_written_is_read() {
        let mut headers = HeaderMap::new();
        write(&mut headers, &jane()).unwrap();
        assert!(headers.contains_key("x-remote-extra-example.com%2fa%20b"), "{headers:?}");
        assert_eq!(read(&headers), Some(jane()));
    }

    #[test]
    fn what_a_caller_says_of_itself_is_gone() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "x-remote-group", "x-remote-extra-scopes", "x-remote-uid"] {
            headers.append(name, HeaderValue::from_static("admin"));
        }
        write(&mut headers, &UserInfo { name: "jane".to_owned(), ..UserInfo::default() }).unwrap();
        assert_eq!(read(&headers), Some(UserInfo { name: "jane".to_owned(), ..UserInfo::default() }));
    }

    #[test]
    fn a_name_with_a_line_break_is_refused() {
        let user = UserInfo { name: "a\r\nx-remote-group: system:masters".to_owned(), ..UserInfo::default() };
        assert!(write(&mut HeaderMap::new(), &user).is_err());
    }
}
