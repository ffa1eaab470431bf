//! The options of a write as an object, for whoever is shown the request.

use serde_json::{Value, json};

use crate::options;

/// With which options a write was asked for.
#[derive(Clone, Copy)]
pub(crate) enum Options<'a> {
    /// `CreateOptions`, `UpdateOptions`; a patch is shown as what it does.
    Write(&'a options::Write),
    /// `DeleteOptions`
    Delete(&'a options::Delete),
    /// CONNECT has none.
    None,
}

impl Options<'_> {
    pub(super) fn dry_run(self) -> bool {
        match self {
            Self::Write(options) => options.dry_run,
            Self::Delete(options) => options.dry_run,
            Self::None => false,
        }
    }

    /// The object; null if there is none.
    pub fn document(self, operation: &str) -> Value {
        let kind = match (self, operation) {
            (Self::None, _) => return Value::Null,
            (Self::Delete(_), _) => "DeleteOptions",
            (Self::Write(_), "CREATE") => "CreateOptions",
            (Self::Write(_), _) => "UpdateOptions",
        };
        let mut document = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run() {
            document["dryRun"] = json!(["All"]);
        }
        match self {
            Self::Write(options) => {
                if !options.field_manager.is_empty() {
                    document["fieldManager"] = options.field_manager.as_str().into();
                }
                if let Some(validation) = options.named_validation {
                    document["fieldValidation"] = validation.name().into();
                }
            }
            Self::Delete(options) => {
                if let Some(seconds) = options.grace {
                    document["gracePeriodSeconds"] = seconds.into();
                }
                for (field, given) in [("uid", &options.uid), ("resourceVersion", &options.resource_version)]
                {
                    if let Some(given) = given {
                        document["preconditions"][field] = given.as_str().into();
                    }
                }
                if options.not_orphan {
                    document["orphanDependents"] = false.into();
                } else if let Some(policy) = options.propagation {
                    document["propagationPolicy"] = policy.name().into();
                }
            }
            Self::None => {}
        }
        document
    }
}
