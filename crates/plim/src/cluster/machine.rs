//! The nodes of one machine: where they lie, and how they are taken away again.
//!
//! One node lies in the machine's own network namespace; several get one each, on a bridge. The layout is written to
//! the state folder before anything is made, so that `plim down` finds everything after any crash.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use network::{nodes::Routes, topology};
use serde::{Deserialize, Serialize};

use crate::data::Data;

const FILE: &str = "run/machine.json";

/// What a user may choose.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How many nodes.
    pub nodes: usize,
    /// Name of the only node; the machine's own when left out.
    pub name: Option<String>,
    /// Address of the only node.
    pub address: Ipv4Addr,
    /// Pods of all nodes.
    pub pods: Ipv4Net,
    /// Service addresses.
    pub services: Ipv4Net,
    /// LoadBalancer addresses.
    pub pool: Ipv4Net,
    /// The network between several nodes and the machine.
    pub between: Ipv4Net,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name of the Node object.
    pub name: String,
    /// Its network namespace; the machine's own if absent.
    pub netns: Option<PathBuf>,
    /// Its InternalIP.
    pub address: Ipv4Addr,
    /// Its pods.
    pub pods: Ipv4Net,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Tells this cluster's things from another one's on the same machine: links, namespaces, cgroups.
    pub tag: String,
    /// The nodes.
    pub nodes: Vec<Place>,
    /// Pods of all nodes.
    pub pods: Ipv4Net,
    /// Service addresses.
    pub services: Ipv4Net,
    /// LoadBalancer addresses.
    pub pool: Ipv4Net,
    /// The network between several nodes and the machine; absent for one node.
    pub between: Option<Ipv4Net>,
}

impl Machine {
    /// Lays nodes out; nothing is made yet.
    pub fn plan(data: &Data, wanted: &Wanted) -> Result<Self> {
        ensure!((1..=200).contains(&wanted.nodes), "--nodes has to be between 1 and 200");
        let tag = tag(data.root());
        let mut ranges = wanted.pods.subnets(24).context("--pod-cidr needs a range of /24 or larger")?;
        let mut range =
            || ranges.next().with_context(|| format!("--pod-cidr {} has no /24 for each node", wanted.pods));
        let several = wanted.nodes > 1;
        let nodes = if several {
            let lab = topology::Lab::plan(lab(&tag, wanted.nodes, wanted.between))?;
            let place = |(i, node): (usize, topology::LabNode)| {
                let (name, netns) = (format!("node-{}", i + 1), Some(node.netns));
                Ok(Place { name, netns, address: node.address, pods: range()? })
            };
            lab.nodes.into_iter().enumerate().map(place).collect::<Result<Vec<_>>>()?
        } else {
            let name = wanted.name.clone().unwrap_or_else(hostname);
            vec![Place { name, netns: None, address: wanted.address, pods: range()? }]
        };
        let between = several.then_some(wanted.between);
        Ok(Self { tag, nodes, pods: wanted.pods, services: wanted.services, pool: wanted.pool, between })
    }

    /// Makes the namespaces and links of several nodes, and the machine's own routes to them.
    pub fn up(&self, data: &Data) -> Result<()> {
        data.write(FILE, &serde_json::to_string_pretty(self)?)?;
        let Some(between) = self.between else { return Ok(()) };
        topology::Lab::up(lab(&self.tag, self.nodes.len(), between))?;
        let mut routes = self.routes()?;
        routes.answer_at(&[self.services, self.pool], self.nodes[0].address)?;
        let behind: BTreeMap<Ipv4Net, Ipv4Addr> = self.nodes.iter().map(|n| (n.pods, n.address)).collect();
        Ok(routes.sync(&behind)?)
    }

    /// What the state folder says was made last.
    pub fn remembered(data: &Data) -> Result<Option<Self>> {
        let Some(text) = data.read(FILE)? else { return Ok(None) };
        let machine = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged", data.path(FILE).display()))?;
        Ok(Some(machine))
    }

    /// The cgroup of all nodes.
    pub fn cgroup_root(&self) -> String {
        format!("/plimsoll/{}", self.tag)
    }

    /// Removes namespaces, links and routes of several nodes, and forgets the layout. Pods have to be gone.
    pub fn down(&self, data: &Data) -> Result<()> {
        if let Some(between) = self.between {
            self.routes()?.cleanup()?;
            topology::Lab::plan(lab(&self.tag, self.nodes.len(), between))?.down()?;
        }
        Ok(std::fs::remove_file(data.path(FILE))?)
    }

    fn routes(&self) -> Result<Routes> {
        Ok(Routes::new(None, &[self.pods, self.services, self.pool])?)
    }

    /// The cgroup of a node, under every controller.
    pub fn cgroup(&self, node: &Place) -> String {
        format!("{}/{}", self.cgroup_root(), node.name)
    }

    /// Where the API server is reached from pods.
    pub fn gateway(&self) -> Result<Ipv4Addr> {
        match self.between {
            Some(between) => Ok(topology::Lab::plan(lab(&self.tag, self.nodes.len(), between))?.host),
            None => Ok(self.nodes[0].address),
        }
    }

    /// The cluster DNS address: the tenth service address, as everywhere.
    pub fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.services.network()) + 10)
    }
}

fn lab(tag: &str, nodes: usize, network: Ipv4Net) -> topology::Config {
    topology::Config { tag: tag.to_owned(), nodes, network }
}

/// Four hexadecimal digits that follow from the place of the state folder. FNV-1a, because they have to come out the
/// same after an update of the program.
fn tag(root: &Path) -> String {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let mut hash: u32 = 0x811c_9dc5;
    for byte in root.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    format!("{:04x}", (hash ^ (hash >> 16)) & 0xffff)
}

/// The machine's name as a Node may have it.
fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' })
        .collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "node-1".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(nodes: usize) -> Wanted {
        Wanted {
            nodes,
            name: Some("alone".to_owned()),
            address: Ipv4Addr::new(192, 0, 2, 7),
            pods: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/16".parse().unwrap(),
            pool: "10.97.0.0/24".parse().unwrap(),
            between: "10.89.0.0/24".parse().unwrap(),
        }
    }

    #[test]
    fn one_node_is_the_machine_itself() {
        let machine = Machine::plan(&Data::at("/tmp/a"), &wanted(1)).unwrap();
        assert_eq!(machine.nodes[0].netns, None);
        assert_eq!(machine.nodes[0].pods.to_string(), "10.244.0.0/24");
        assert_eq!(machine.gateway().unwrap(), Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(machine.dns(), Ipv4Addr::new(10, 96, 0, 10));
    }

    #[test]
    fn several_nodes_have_namespaces_and_ranges_of_their_own() {
        let machine = Machine::plan(&Data::at("/tmp/a"), &wanted(3)).unwrap();
        assert_eq!(machine.nodes[2].name, "node-3");
        assert_eq!(machine.nodes[2].pods.to_string(), "10.244.2.0/24");
        assert!(machine.nodes.iter().all(|n| n.netns.is_some()));
        assert_eq!(machine.gateway().unwrap(), Ipv4Addr::new(10, 89, 0, 1));
    }

    #[test]
    fn two_state_folders_are_told_apart() {
        assert_ne!(tag(Path::new("/tmp/a")), tag(Path::new("/tmp/b")));
        assert_eq!(tag(Path::new("/tmp/a")).len(), 4);
    }

    #[test]
    fn a_range_that_is_too_small_is_refused() {
        let small = Wanted { pods: "10.244.0.0/24".parse().unwrap(), ..wanted(2) };
        assert!(Machine::plan(&Data::at("/tmp/a"), &small).unwrap_err().to_string().contains("no /24"));
    }
}
