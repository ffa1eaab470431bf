//! `authentication.k8s.io/v1`: reviews. They are answered, never stored.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("authentication.k8s.io/v1", "tokenreviews").strategy(Plain);
    to.resource("authentication.k8s.io/v1", "selfsubjectreviews").strategy(Plain);
}
