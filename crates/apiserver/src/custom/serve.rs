//! From a definition to entries of the catalogue.

use std::sync::Arc;

use apimachinery::{FieldError, Object, Schema};
use kinds::apiextensions;
use store::Revision;

use super::{Converter, Versions};
use crate::catalogue::{Served, View};

/// Every version of a definition, those that are not served too: one of them may be what is stored. `since`: objects
/// written later obey the schema as it is now.
///
/// A built-in kind of the same place stays what it is.
pub(super) fn served(
    definition: &Object,
    since: Revision,
    builtin: &[Arc<Served>],
) -> Result<Vec<Arc<Served>>, Vec<FieldError>> {
    let made = apiextensions::define(definition)?;
    let Some(stored) = made.iter().find(|v| v.storage).map(|v| v.resource.clone()) else {
        return Ok(Vec::new());
    };
    let taken =
        builtin.iter().any(|b| b.resource.group == stored.group && b.resource.plural == stored.plural);
    if taken {
        return Ok(Vec::new());
    }
    // What was written through another version has not been given the defaults of the stored one: reading does that.
    let several = made.iter().filter(|v| v.served).count() > 1;
    let since = if several && has_defaults(&stored.schema) { Revision(u64::MAX) } else { since };
    let versions = Arc::new(Versions {
        all: made.iter().map(|v| (v.resource.api_version(), v.resource.clone())).collect(),
        storage: stored.api_version(),
        converter: Converter::of(definition),
    });
    let schemas: Vec<_> = made
        .iter()
        .map(|v| (Arc::<str>::from(v.resource.api_version()), v.resource.schema.clone()))
        .collect();
    let serve = |version: apiextensions::Version| {
        let mut served = Served::new(version.resource);
        served.view = View::Custom { since, versions: versions.clone() };
        served.hidden = !version.served;
        served.others = schemas.iter().filter(|(name, _)| **name != *served.api_version).cloned().collect();
        served.deprecation = version.warning;
        served.storage_version = stored.version.clone();
        Arc::new(served)
    };
    Ok(made.into_iter().map(serve).collect())
}

/// Whether there is a default anywhere in a schema.
fn has_defaults(schema: &Schema) -> bool {
    let inner = schema.properties.values().chain(&schema.additional).chain(&schema.items);
    schema.default.is_some() || inner.into_iter().any(|child| has_defaults(child))
}
