//! IPAddress and ServiceCIDR: where addresses of Services come from.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("networking.k8s.io/v1", "ipaddresses").tracks_spec().strategy(Plain);
    to.resource("networking.k8s.io/v1", "servicecidrs").tracks_spec().strategy(Plain);
}
