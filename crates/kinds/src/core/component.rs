//! `ComponentStatus`: how the parts of the control plane are. It is made when it is asked for and never stored.

use apimachinery::Object;
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::resource::Strategy;

/// See the module.
pub struct ComponentStatus;

impl Strategy for ComponentStatus {
    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        let mut conditions = object["conditions"].as_array().into_iter().flatten();
        let healthy = conditions.find(|condition| condition["type"] == "Healthy");
        let text = |field: &str| healthy.and_then(|h| h[field].as_str()).unwrap_or_default();
        let status = match healthy.map(|h| h["status"] == "True") {
            Some(true) => "Healthy",
            Some(false) => "Unhealthy",
            None => "Unknown",
        };
        Some(vec![
            object["metadata"]["name"].clone(),
            status.into(),
            text("message").into(),
            text("error").into(),
        ])
    }
}
