//! What volumes are made from: ConfigMaps, Secrets, the downward API, tokens, claims.

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, PersistentVolume, PersistentVolumeClaim, Pod,
    PodCertificateProjection, Secret, Volume,
};

use super::{
    atomic::{File, Payload},
    trust::{self, Bundles},
};
use crate::{environment, environment::Facts, spec};

/// A bound token that a projected volume asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenNeed {
    /// Audience, empty for the API server's own.
    pub audience: String,
    /// Seconds it shall be valid.
    pub seconds: i64,
}

/// A certificate that a projected volume asks for: the volume's name and the index of the source in it.
pub type CertificateNeed = (String, usize);

/// A private key and the certificates issued for it, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// PKCS#8.
    pub key: String,
    /// Leaf first.
    pub chain: String,
}

/// Names of what a pod's volumes need from the API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// ConfigMaps.
    pub config_maps: Vec<String>,
    /// Secrets.
    pub secrets: Vec<String>,
    /// PersistentVolumeClaims.
    pub claims: Vec<String>,
    /// Tokens.
    pub tokens: Vec<TokenNeed>,
    /// Certificates, with what is asked for.
    pub certificates: Vec<(CertificateNeed, PodCertificateProjection)>,
    /// Whether ClusterTrustBundles are asked for.
    pub trust: bool,
}

/// What was found of it.
pub struct Objects<'a> {
    /// ConfigMaps by name, `None` for those that do not exist.
    pub config_maps: &'a BTreeMap<String, Option<ConfigMap>>,
    /// Secrets by name, `None` for those that do not exist.
    pub secrets: &'a BTreeMap<String, Option<Secret>>,
    /// Claims with their volumes by the claim's name.
    pub claims: &'a BTreeMap<String, (Option<PersistentVolumeClaim>, Option<PersistentVolume>)>,
    /// Tokens.
    pub tokens: &'a BTreeMap<TokenNeed, String>,
    /// Certificates with their keys.
    pub certificates: &'a BTreeMap<CertificateNeed, Credentials>,
    /// ClusterTrustBundles.
    pub bundles: &'a Bundles,
    /// Facts of node and pod.
    pub facts: Facts<'a>,
}

/// The claim behind a volume: named, or made for this pod.
pub fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    volume.ephemeral.as_ref().map(|_| format!("{}-{}", spec::identity(pod).1, volume.name))
}

/// What the pod's volumes need.
pub fn needs(pod: &Pod) -> Needs {
    let spec = spec::spec(pod);
    let mut needs = Needs::default();
    for volume in spec.volumes.iter().flatten() {
        needs.config_maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
        needs.secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        needs.claims.extend(claim_name(pod, volume));
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for (index, source) in sources.enumerate() {
            if let Some(certificate) = &source.pod_certificate {
                needs.certificates.push(((volume.name.clone(), index), certificate.clone()));
            }
            needs.trust |= source.cluster_trust_bundle.is_some();
            needs.config_maps.extend(source.config_map.iter().map(|c| c.name.clone()));
            needs.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
            needs.tokens.extend(source.service_account_token.iter().map(token_need));
        }
    }
    needs
}

/// Whether a volume holds what must not lie on a disk: secrets, tokens or keys.
pub(super) fn confidential(volume: &Volume) -> bool {
    let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    volume.secret.is_some()
        || sources
            .into_iter()
            .any(|s| s.secret.is_some() || s.service_account_token.is_some() || s.pod_certificate.is_some())
}

fn token_need(t: &k8s_openapi::api::core::v1::ServiceAccountTokenProjection) -> TokenNeed {
    TokenNeed {
        audience: t.audience.clone().unwrap_or_default(),
        seconds: t.expiration_seconds.unwrap_or(3600).max(600),
    }
}

impl Objects<'_> {
    /// The host path behind a bound claim, and whether it is read-only.
    pub(super) fn claimed(&self, claim: &str) -> Result<(PathBuf, bool), String> {
        let (pvc, pv) = self.claims.get(claim).cloned().unwrap_or_default();
        let pvc = pvc.ok_or_else(|| format!("persistentvolumeclaim {claim:?} not found"))?;
        if pvc.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
            return Err(format!("PVC {claim} is not bound"));
        }
        let pv = pv.and_then(|pv| pv.spec).ok_or_else(|| format!("volume of claim {claim} not found"))?;
        let read_only = pvc.spec.and_then(|s| s.access_modes).is_some_and(|m| m == ["ReadOnlyMany"]);
        let path = pv.host_path.map(|h| h.path).or(pv.local.map(|l| l.path));
        let path =
            path.ok_or_else(|| format!("claim {claim}: only local and hostPath volumes are supported"))?;
        Ok((path.into(), read_only))
    }
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(0o644)).unwrap_or(0o644) & 0o777
}

/// Picks `items` of `data`, or all of it.
fn pick(
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    optional: bool,
    default: Option<i32>,
    what: &str,
    out: &mut Payload,
) -> Result<(), String> {
    match items.filter(|i| !i.is_empty()) {
        None => {
            for (key, bytes) in data {
                out.insert(key.clone(), File { bytes: bytes.clone(), mode: mode(None, default) });
            }
        }
        Some(items) => {
            for item in items {
                match data.get(&item.key) {
                    Some(bytes) => {
                        let file = File { bytes: bytes.clone(), mode: mode(item.mode, default) };
                        out.insert(item.path.clone(), file);
                    }
                    None if optional => {}
                    None => return Err(format!("{what} references non-existent key: {}", item.key)),
                }
            }
        }
    }
    Ok(())
}

fn map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()))).collect()
}

fn downward(
    files: &[DownwardAPIVolumeFile],
    default: Option<i32>,
    pod: &Pod,
    facts: &Facts<'_>,
    out: &mut Payload,
) -> Result<(), String> {
    for file in files {
        let text = if let Some(f) = &file.field_ref {
            environment::field(pod, &f.field_path, facts)
        } else if let Some(r) = &file.resource_field_ref {
            environment::resource(pod, "", r, facts)
        } else {
            continue;
        };
        let bytes = text.map_err(|e| e.to_string())?.into_bytes();
        out.insert(file.path.clone(), File { bytes, mode: mode(file.mode, default) });
    }
    Ok(())
}

/// The files of a volume made from API objects; `None` for other kinds of volumes.
pub(super) fn payload(volume: &Volume, pod: &Pod, objects: &Objects<'_>) -> Option<Result<Payload, String>> {
    let mut out = Payload::new();
    let add_map = |name: &str, items, optional: Option<bool>, default, out: &mut Payload| {
        let optional = optional.unwrap_or(false);
        match objects.config_maps.get(name).and_then(Option::as_ref) {
            Some(map) => pick(&map_data(map), items, optional, default, "configmap", out),
            None if optional => Ok(()),
            None => Err(format!("configmap {name:?} not found")),
        }
    };
    let add_secret = |name: &str, items, optional: Option<bool>, default, out: &mut Payload| {
        let optional = optional.unwrap_or(false);
        match objects.secrets.get(name).and_then(Option::as_ref) {
            Some(secret) => {
                let data = secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect();
                pick(&data, items, optional, default, "secret", out)
            }
            None if optional => Ok(()),
            None => Err(format!("secret {name:?} not found")),
        }
    };
    if let Some(c) = &volume.config_map {
        return Some(add_map(&c.name, c.items.as_ref(), c.optional, c.default_mode, &mut out).map(|()| out));
    }
    if let Some(s) = &volume.secret {
        let name = s.secret_name.as_deref().unwrap_or_default();
        return Some(add_secret(name, s.items.as_ref(), s.optional, s.default_mode, &mut out).map(|()| out));
    }
    if let Some(d) = &volume.downward_api {
        let items = d.items.as_deref().unwrap_or_default();
        return Some(downward(items, d.default_mode, pod, &objects.facts, &mut out).map(|()| out));
    }
    let projected = volume.projected.as_ref()?;
    let default = projected.default_mode;
    for (index, source) in projected.sources.iter().flatten().enumerate() {
        let added = if let Some(c) = &source.config_map {
            add_map(&c.name, c.items.as_ref(), c.optional, default, &mut out)
        } else if let Some(s) = &source.secret {
            add_secret(&s.name, s.items.as_ref(), s.optional, default, &mut out)
        } else if let Some(d) = &source.downward_api {
            downward(d.items.as_deref().unwrap_or_default(), default, pod, &objects.facts, &mut out)
        } else if let Some(t) = &source.service_account_token {
            match objects.tokens.get(&token_need(t)) {
                Some(token) => {
                    let file = File { bytes: token.clone().into_bytes(), mode: token_mode(pod, default) };
                    out.insert(t.path.clone(), file);
                    Ok(())
                }
                None => Err("token is not available".to_owned()),
            }
        } else if let Some(t) = &source.cluster_trust_bundle {
            trust::anchors(t, objects.bundles).map(|pem| {
                let file = File { bytes: pem.into_bytes(), mode: token_mode(pod, default) };
                out.insert(t.path.clone(), file);
            })
        } else if let Some(c) = &source.pod_certificate {
            match objects.certificates.get(&(volume.name.clone(), index)) {
                Some(credentials) => {
                    out.extend(certificate_files(c, credentials, token_mode(pod, default)));
                    Ok(())
                }
                None => Err("credential bundle is not issued yet".to_owned()),
            }
        } else {
            Err("a source of this volume is of a kind that this node does not know".to_owned())
        };
        if let Err(why) = added {
            return Some(Err(why));
        }
    }
    Some(Ok(out))
}

/// The files of a certificate: together, apart, or both.
fn certificate_files(
    wanted: &PodCertificateProjection,
    credentials: &Credentials,
    mode: u32,
) -> impl Iterator<Item = (String, File)> {
    let together = format!("{}{}", credentials.key, credentials.chain);
    let files = [
        (&wanted.credential_bundle_path, together),
        (&wanted.key_path, credentials.key.clone()),
        (&wanted.certificate_chain_path, credentials.chain.clone()),
    ];
    let named = files.map(|(path, text)| {
        let path = path.clone().filter(|p| !p.is_empty())?;
        Some((path, File { bytes: text.into_bytes(), mode }))
    });
    named.into_iter().flatten()
}

/// A token is for its owner only, unless a group is to read it or nobody says whom the processes run as.
fn token_mode(pod: &Pod, default: Option<i32>) -> u32 {
    let spec = spec::spec(pod);
    let security = spec.security_context.as_ref();
    if security.is_some_and(|s| s.fs_group.is_some()) { 0o600 } else { mode(None, default) }
}
