//! Endpoints.

use apimachinery::Object;
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name, some_of},
    object::{list, number, text},
    resource::Strategy,
};

pub struct Endpoints;

/// `10.0.0.1:80`, `[fd00::1]:80`
fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

impl Strategy for Endpoints {
    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let mut places = Vec::new();
        for subset in list(object, "subsets") {
            let addresses = || list(subset, "addresses").iter().map(|address| text(address, "ip"));
            let ports = list(subset, "ports");
            if ports.is_empty() {
                places.extend(addresses().map(str::to_owned));
            }
            for port in ports {
                places.extend(addresses().map(|ip| host_port(ip, number(port, "port"))));
            }
        }
        Some(vec![
            name(object),
            some_of(&places, 3, if list(object, "subsets").is_empty() { "<none>" } else { "" }).into(),
            created(object, now),
        ])
    }
}
