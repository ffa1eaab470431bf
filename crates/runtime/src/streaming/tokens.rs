//! Tokens of streaming URLs: unguessable, good for one request, and for a minute.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::RngCore as _;

/// How long a token waits for its request.
pub(super) const LIFETIME: Duration = Duration::from_secs(60);
/// Tokens that may wait at once.
const CAPACITY: usize = 1000;

/// Too many tokens wait for their requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What the tokens given out stand for.
#[derive(Debug)]
pub(super) struct Tokens<T> {
    waiting: HashMap<String, T>,
    /// In the order of their making, which is that of their end. Taken tokens stay here until their time.
    ends: VecDeque<(Instant, String)>,
}

impl<T> Tokens<T> {
    pub(super) fn new() -> Self {
        Self { waiting: HashMap::new(), ends: VecDeque::new() }
    }

    /// A new token for `value`.
    pub(super) fn insert(&mut self, value: T, now: Instant) -> Result<String, Full> {
        self.expire(now);
        if self.waiting.len() >= CAPACITY {
            return Err(Full);
        }
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        let token = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        self.ends.push_back((now + LIFETIME, token.clone()));
        self.waiting.insert(token.clone(), value);
        Ok(token)
    }

    /// What the token stands for, if it has not expired; it is good no longer.
    pub(super) fn take(&mut self, token: &str, now: Instant) -> Option<T> {
        self.expire(now);
        self.waiting.remove(token)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((end, _)) = self.ends.front()
            && (*end <= now || self.ends.len() > 8 * CAPACITY)
        {
            if let Some((_, token)) = self.ends.pop_front() {
                self.waiting.remove(&token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once() {
        let (mut tokens, now) = (Tokens::new(), Instant::now());
        let token = tokens.insert("exec", now).unwrap();
        assert_eq!(token.len(), 43);
        assert_eq!(tokens.take(&token, now), Some("exec"));
        assert_eq!(tokens.take(&token, now), None);
    }

    #[test]
    fn a_token_ends_after_its_lifetime() {
        let (mut tokens, now) = (Tokens::new(), Instant::now());
        let token = tokens.insert(1, now).unwrap();
        let other = tokens.insert(2, now + Duration::from_secs(1)).unwrap();
        assert_eq!(tokens.take(&token, now + LIFETIME), None);
        assert_eq!(tokens.take(&other, now + LIFETIME), Some(2));
    }

    #[test]
    fn tokens_are_bounded_until_the_oldest_end() {
        let (mut tokens, now) = (Tokens::new(), Instant::now());
        for i in 0..CAPACITY {
            tokens.insert(i, now).unwrap();
        }
        assert_eq!(tokens.insert(0, now), Err(Full));
        assert!(tokens.insert(0, now + LIFETIME).is_ok());
        assert_eq!(tokens.waiting.len(), 1);
    }
}
