//! `networking.k8s.io/v1`: Ingress, IngressClass, NetworkPolicy. They are kept and judged; controllers that act on them are
//! not part of this version, and a writer is told so.

mod addresses;
mod ingress;
mod policy;

use crate::declare::Declarer;

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("networking.k8s.io/v1", "ingressclasses").tracks_spec().strategy(ingress::IngressClass);
    to.resource("networking.k8s.io/v1", "ingresses").tracks_spec().strategy(ingress::Ingress);
    to.resource("networking.k8s.io/v1", "networkpolicies").tracks_spec().strategy(policy::NetworkPolicy);
    addresses::declare(to);
}
