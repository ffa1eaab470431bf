//! The loops of the cluster itself, in one list.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use crate::{
    Controller,
    attributes_class::ClassProtection,
    autoscaler::Autoscaler,
    certificates::{
        approving::Approving,
        authority::Authority,
        cleaner::{Cleaner, PodCleaner},
        signing::Signing,
        trust_bundle::TrustBundle,
    },
    device_taints::DeviceTaints,
    disruption::{Disruption, StaleDisruption},
    endpoints::EndpointsLoop,
    endpointslice::EndpointSlices,
    ephemeral_volumes::EphemeralVolumes,
    garbage_collector::GarbageCollector,
    legacy_tokens::LegacyTokens,
    local_path::LocalPath,
    mirroring::Mirroring,
    namespaces::Namespaces,
    node_ipam::{NodeIpam, Range},
    node_lifecycle::NodeLifecycle,
    node_ttl::NodeTtl,
    pod_gc::PodGc,
    protection::{ClaimProtection, VolumeProtection},
    quota::Quota,
    resource_claims::{Consumers, PodClaims},
    role_aggregation::RoleAggregation,
    root_ca::RootCa,
    service_accounts::ServiceAccounts,
    service_cidrs::ServiceCidrs,
    storage_migration::StorageMigration,
    taint_eviction::TaintEviction,
    token_secrets::{Sign, TokenSecrets},
    ttl_after_finished::TtlAfterFinished,
    volumes::VolumeBinder,
};

/// What the loops have to be told.
#[derive(Clone)]
pub struct Settings {
    /// The certificate, PEM, by which pods know the API server.
    pub ca: String,
    /// Who signs certificates that are requested of the signers of `kubernetes.io`; nobody if absent.
    pub authority: Option<Authority>,
    /// The signer of tokens without end; none are made if absent.
    pub sign: Option<Sign>,
    /// The networks that nodes get their parts of; none when something else gives them out.
    pub pod_networks: Vec<Range>,
    /// Where [`LocalPath`] volumes are on each node; none without a local-path provisioner.
    pub volumes: Option<PathBuf>,
    /// The nodes whose disks this process reaches; all if absent.
    pub disks: Option<BTreeSet<String>>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("pod_networks", &self.pod_networks)
            .field("volumes", &self.volumes)
            .field("disks", &self.disks)
            .finish_non_exhaustive()
    }
}

/// The loops.
#[must_use]
pub fn loops(settings: Settings) -> Vec<Box<dyn Controller>> {
    let mut loops: Vec<Box<dyn Controller>> = vec![
        Box::new(Namespaces),
        Box::new(GarbageCollector),
        Box::new(ServiceAccounts),
        Box::new(RootCa { certificate: settings.ca.clone() }),
        Box::new(TrustBundle { certificate: settings.ca.clone() }),
        Box::new(Approving),
        Box::new(StorageMigration),
        Box::new(ServiceCidrs),
        Box::new(Cleaner),
        Box::new(PodCleaner),
        Box::new(TokenSecrets { certificate: settings.ca, sign: settings.sign }),
        Box::new(EndpointSlices),
        Box::new(EndpointsLoop),
        Box::new(Mirroring),
        Box::new(Disruption),
        Box::new(StaleDisruption),
        Box::new(Quota),
        Box::new(Autoscaler),
        Box::new(NodeLifecycle::default()),
        Box::new(NodeTtl),
        Box::new(TaintEviction),
        Box::new(PodGc::default()),
        Box::new(TtlAfterFinished),
        Box::new(VolumeBinder),
        Box::new(ClaimProtection),
        Box::new(VolumeProtection),
        Box::new(ClassProtection),
        Box::new(LegacyTokens),
        Box::new(EphemeralVolumes),
        Box::new(RoleAggregation),
        Box::new(PodClaims),
        Box::new(Consumers),
        Box::new(DeviceTaints),
    ];
    if let Some(authority) = settings.authority {
        loops.push(Box::new(Signing { authority }));
    }
    if !settings.pod_networks.is_empty() {
        loops.push(Box::new(NodeIpam { ranges: settings.pod_networks }));
    }
    if let Some(root) = settings.volumes {
        loops.push(Box::new(LocalPath { root, nodes: settings.disks }));
    }
    loops
}
