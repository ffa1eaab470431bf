//! `storagemigration.k8s.io/v1`: StorageVersionMigration.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("storagemigration.k8s.io/v1", "storageversionmigrations")
        .tracks_spec()
        .needs_resource_version()
        .strategy(Plain);
}
