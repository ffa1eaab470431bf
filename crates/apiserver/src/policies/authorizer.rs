//! The authorizers of the server as expressions ask them.

use std::sync::Arc;

use access::{Attributes, Authorizer, Decision, UserInfo};
use apimachinery::cel::{Answer, Authorize, Question};

use crate::admit::Write;

/// Who asks whom.
pub(super) struct Asked {
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// Whoever makes the request.
    pub user: Arc<UserInfo>,
}

/// The question about what a write is about.
pub(super) fn about(write: &Write<'_>) -> Question {
    let at = &write.attributes;
    Question {
        group: at.group.clone(),
        resource: at.resource.clone(),
        subresource: at.subresource.clone(),
        namespace: at.namespace.clone(),
        name: at.name.clone(),
        ..Question::default()
    }
}

impl Authorize for Asked {
    fn authorize(&self, question: &Question) -> Answer {
        let user = match &question.service_account {
            None => self.user.clone(),
            Some((namespace, name)) => Arc::new(UserInfo {
                name: format!("system:serviceaccount:{namespace}:{name}"),
                groups: vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                ],
                ..UserInfo::default()
            }),
        };
        let attributes = Attributes {
            user,
            verb: question.verb.clone(),
            resource_request: question.path.is_none(),
            group: question.group.clone(),
            version: if question.path.is_none() { "*".to_owned() } else { String::new() },
            resource: question.resource.clone(),
            subresource: question.subresource.clone(),
            namespace: question.namespace.clone(),
            name: question.name.clone(),
            path: question.path.clone().unwrap_or_default(),
            label_selector: question.label_selector.clone(),
            field_selector: question.field_selector.clone(),
        };
        match access::decide(&self.authorizers, &attributes) {
            Decision::Allow(reason) => Answer { allowed: true, reason, error: None },
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                Answer { allowed: false, reason, error: None }
            }
        }
    }
}
