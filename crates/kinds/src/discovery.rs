//! `discovery.k8s.io/v1`: EndpointSlice.

use apimachinery::Object;
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name, some_of},
    declare::Declarer,
    object::{at, list, text},
    resource::Strategy,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("discovery.k8s.io/v1", "endpointslices").tracks_content().strategy(EndpointSlice);
}

struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let ports: Vec<String> = list(object, "ports")
            .iter()
            .map(|port| match (at(port, "port").as_i64(), at(port, "name").as_str()) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.to_owned(),
                (None, None) => "*".to_owned(),
            })
            .collect();
        let addresses: Vec<String> = list(object, "endpoints")
            .iter()
            .flat_map(|endpoint| list(endpoint, "addresses"))
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        let shown = |items: &[String]| -> Value {
            let text = some_of(items, 3, "<unset>");
            if text.is_empty() { "<unset>".into() } else { text.into() }
        };
        Some(vec![
            name(object),
            text(object, "addressType").into(),
            shown(&ports),
            shown(&addresses),
            created(object, now),
        ])
    }
}
