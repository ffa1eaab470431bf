//! Sparse objects, written as upstream writes them. The cases are written by `conformance/cmd/protobufcases`.

use base64::Engine as _;
use kinds::protobuf;
use serde_json::Value;

#[test]
fn fields_that_are_not_there_are_written_as_upstream_writes_them() {
    let mut wrong = Vec::new();
    for line in include_str!("data/upstream_protobuf.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let theirs =
            base64::engine::general_purpose::STANDARD.decode(case["protobuf"].as_str().unwrap()).unwrap();
        let object = &case["object"];
        let text = |field: &str| object[field].as_str().unwrap();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let ours = match kind.strip_suffix("List") {
            Some(item) => {
                let writer = protobuf::ObjectWriter::new(api_version, item).unwrap();
                let items: Vec<u8> =
                    object["items"].as_array().unwrap().iter().flat_map(|i| writer.write_value(i)).collect();
                let head = protobuf::list_head(api_version, kind, &object["metadata"], items.len()).unwrap();
                Some([head, items, protobuf::list_tail()].concat())
            }
            None => protobuf::encode(object, api_version, kind),
        };
        let ours = ours.unwrap();
        if ours != theirs {
            let at = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
            wrong.push(format!("{kind} at {at}:\n{}\n{}", ours.escape_ascii(), theirs.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
