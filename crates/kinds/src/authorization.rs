//! `authorization.k8s.io/v1`: reviews. They are answered, never stored.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("authorization.k8s.io/v1", "localsubjectaccessreviews").strategy(Plain);
    to.resource("authorization.k8s.io/v1", "selfsubjectaccessreviews").strategy(Plain);
    to.resource("authorization.k8s.io/v1", "selfsubjectrulesreviews").strategy(Plain);
    to.resource("authorization.k8s.io/v1", "subjectaccessreviews").strategy(Plain);
}
