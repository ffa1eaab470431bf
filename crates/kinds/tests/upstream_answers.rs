//! Faulty objects and what kube-apiserver v1.37.2 answered to a dry-run create of each: same fields and words.

use apimachinery::structure;
use chrono::DateTime;
use serde_json::Value;

/// Upstream prints these two values as its internal structs, whose fields we do not have.
fn is_internal(cause: &str) -> bool {
    cause.contains("\"SELinuxOptions\":null") || cause.contains("\"AppProtocol\":null")
}

#[test]
fn faulty_objects_are_told_as_upstream_tells_them() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("upstream_answers.json")).unwrap();
    for case in cases {
        let text = |field: &str| case[field].as_str().unwrap();
        let resource = kinds::find(text("group"), "v1", text("plural")).unwrap();
        let mut object = case["object"].clone();
        object["metadata"]["uid"] = "3c1b".into();
        structure::canonicalize(&mut object, &resource.schema).unwrap();
        structure::always(&mut object, &resource.schema);
        apimachinery::defaults::apply(&mut object, &resource.schema);
        resource.strategy.default(&mut object);
        resource.strategy.prepare_create(&mut object, DateTime::UNIX_EPOCH);
        let ours: Vec<String> = resource.strategy.validate(&object).iter().map(ToString::to_string).collect();
        let theirs: Vec<&str> =
            case["causes"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        assert_eq!(ours.len(), theirs.len(), "{}", text("plural"));
        // Upstream walks maps in random order; the set is what counts.
        for cause in theirs.into_iter().filter(|cause| !is_internal(cause)) {
            assert!(ours.iter().any(|our| our == cause), "{}: missing {cause}\nin {ours:#?}", text("plural"));
        }
    }
}
