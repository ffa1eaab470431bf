//! What a certificate is requested for, and which requests the signers of `kubernetes.io` take.
//!
//! Source: `pkg/apis/certificates/helpers.go`, `pkg/controller/certificates/signer/signer.go`.

use std::collections::BTreeSet;

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    pem::parse_x509_pem,
    prelude::FromDer,
};

use super::der;

/// Client certificates for the API server.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of kubelets.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates of kubelets.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Without any rule or promise.
pub const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// The largest request that is looked at, in bytes of PEM; the largest keys come to some 3 KiB.
const MOST: usize = 64 * 1024;

/// A PKCS#10 request whose signature is its key's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The subject's name, DER.
    pub subject: Vec<u8>,
    /// The subject's public key, DER.
    pub key: Vec<u8>,
    /// `CN`
    pub common_name: String,
    /// Every `O`.
    pub organizations: Vec<String>,
    /// How many names of each kind: DNS, e-mail, IP, URI.
    pub dns: usize,
    /// `rfc822Name`s.
    pub emails: usize,
    /// `iPAddress`es.
    pub addresses: usize,
    /// `uniformResourceIdentifier`s.
    pub uris: usize,
    /// Those names, DER, one after another; empty without any.
    pub names: Vec<u8>,
}

impl Request {
    /// Reads PEM.
    ///
    /// # Errors
    /// Why it is no request, or not its key's.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        const NONE: &str = "PEM block type must be CERTIFICATE REQUEST";
        if pem.len() > MOST {
            return Err("the certificate request is too large".to_owned());
        }
        let (_, block) = parse_x509_pem(pem).map_err(|_| NONE.to_owned())?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(NONE.to_owned());
        }
        let (_, parsed) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|error| format!("unable to parse certificate request: {error}"))?;
        parsed
            .verify_signature()
            .map_err(|error| format!("unable to verify certificate request signature: {error}"))?;
        let info = &parsed.certification_request_info;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            value.as_str().map(str::to_owned).unwrap_or_default()
        };
        let mut request = Self {
            subject: info.subject.as_raw().to_vec(),
            key: info.subject_pki.raw.to_vec(),
            common_name: info.subject.iter_common_name().next().map(text).unwrap_or_default(),
            organizations: info.subject.iter_organization().map(text).collect(),
            ..Self::default()
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| request.add(name));
            }
        }
        Ok(request)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        // context-specific tags of GeneralName, RFC 5280, section 4.2.1.6
        let (tag, bytes, count) = match name {
            GeneralName::RFC822Name(text) => (0x81, text.as_bytes(), &mut self.emails),
            GeneralName::DNSName(text) => (0x82, text.as_bytes(), &mut self.dns),
            GeneralName::URI(text) => (0x86, text.as_bytes(), &mut self.uris),
            GeneralName::IPAddress(address) => (0x87, *address, &mut self.addresses),
            _ => return,
        };
        *count += 1;
        self.names.extend(der::value(tag, bytes));
    }

    /// Whether a signer may sign this for these usages. It has been approved; that is not asked here.
    ///
    /// # Errors
    /// Upstream's words for why not.
    pub fn judge(&self, signer: &str, usages: &[String]) -> Result<(), String> {
        match signer {
            CLIENT => client_usages(usages),
            KUBELET_CLIENT => self.judge_kubelet_client(usages),
            KUBELET_SERVING => self.judge_kubelet_serving(usages),
            _ => Ok(()),
        }
    }

    fn judge_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.judge_organization()?;
        for (count, kind) in
            [(self.dns, "DNS"), (self.emails, "Email"), (self.addresses, "IP"), (self.uris, "URI")]
        {
            not_allowed(count, kind)?;
        }
        self.judge_name()?;
        exactly(usages, "client auth")
    }

    fn judge_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.judge_organization()?;
        if self.dns == 0 && self.addresses == 0 {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        not_allowed(self.emails, "Email")?;
        not_allowed(self.uris, "URI")?;
        exactly(usages, "server auth")?;
        self.judge_name()
    }

    fn judge_organization(&self) -> Result<(), String> {
        if self.organizations == ["system:nodes"] {
            return Ok(());
        }
        Err("subject organization is not system:nodes".to_owned())
    }

    fn judge_name(&self) -> Result<(), String> {
        if self.common_name.starts_with("system:node:") {
            return Ok(());
        }
        Err("subject common name does not begin with system:node:".to_owned())
    }
}

fn not_allowed(count: usize, kind: &str) -> Result<(), String> {
    if count == 0 { Ok(()) } else { Err(format!("{kind} subjectAltNames are not allowed")) }
}

/// For a kubelet: `digital signature` and this one; `key encipherment` too for keys that can do it.
fn exactly(usages: &[String], needed: &str) -> Result<(), String> {
    let asked: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let without = BTreeSet::from(["digital signature", needed]);
    let with = BTreeSet::from(["digital signature", "key encipherment", needed]);
    if asked == without || asked == with {
        return Ok(());
    }
    let list: Vec<&str> = with.into_iter().collect();
    Err(format!("usages did not match [{}]", list.join(" ")))
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if usages.iter().any(|usage| usage == "client auth") {
        return Ok(());
    }
    Err("missing required usage for client certificate: client auth".to_owned())
}
