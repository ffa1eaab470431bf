//! From a definition to entries of the catalogue.

use std::sync::Arc;

use apimachinery::{FieldError, Object};
use kinds::apiextensions;
use store::Revision;

use crate::catalogue::{Served, View};

/// Every version of a definition, those that are not served too: one of them may be what is stored. `since`: objects
/// written later obey the schema as it is now, if there is only one.
///
/// A built-in kind of the same place stays what it is.
pub(super) fn served(
    definition: &Object,
    since: Revision,
    builtin: &[Arc<Served>],
) -> Result<Vec<Arc<Served>>, Vec<FieldError>> {
    let versions = apiextensions::define(definition)?;
    let stored = versions.iter().find(|v| v.storage).map(|v| v.resource.version.clone());
    let schemas: Vec<_> = versions
        .iter()
        .filter(|v| v.served)
        .map(|v| (Arc::<str>::from(v.resource.api_version()), v.resource.schema.clone()))
        .collect();
    let since = if versions.len() == 1 { since } else { Revision(u64::MAX) };
    let mut all = Vec::new();
    for version in versions {
        let resource = &version.resource;
        let taken = builtin
            .iter()
            .any(|b| b.resource.group == resource.group && b.resource.plural == resource.plural);
        if taken {
            continue;
        }
        let mut served = Served::new(version.resource.clone());
        served.view = View::Custom { since, storage: version.storage };
        served.hidden = !version.served;
        served.others = schemas.iter().filter(|(name, _)| **name != *served.api_version).cloned().collect();
        served.deprecation = version.warning;
        if let Some(stored) = &stored {
            served.storage_version = stored.clone();
        }
        all.push(Arc::new(served));
    }
    Ok(all)
}
