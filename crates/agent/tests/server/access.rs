//! Who may do what.

use http::Method;
use serde_json::json;

use crate::{
    client::{ask, get, request, send, soon, text},
    fakes::Node,
};

#[tokio::test]
async fn nobody_gets_in_without_credentials() {
    let node = Node::start().await;
    for headers in [&[][..], &[("authorization", "Bearer nonsense")], &[("authorization", "Basic eDp5")]] {
        let answer = send(&node, None, request(Method::GET, "/healthz", headers)).await;
        assert_eq!(answer.status(), 401);
        assert_eq!(text(answer).await, "Unauthorized");
    }
}

#[tokio::test]
async fn masters_are_let_in_without_asking() {
    let node = Node::start().await;
    assert_eq!(get(&node, "/healthz").await, (200, "ok".to_owned()));
    assert!(node.api.reviews.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_api_server_is_asked_once_in_a_while_for_everybody_else() {
    let node = Node::start().await;
    for _ in 0..3 {
        let identity = node.authority.identity("jane", "dev");
        let answer = send(&node, Some(identity), request(Method::GET, "/metrics/resource", &[])).await;
        assert_eq!(answer.status(), 200);
    }
    let reviews = node.api.reviews.lock().unwrap().clone();
    assert_eq!(reviews.len(), 1);
    assert_eq!(reviews[0]["spec"]["user"], "jane");
    assert_eq!(reviews[0]["spec"]["groups"], json!(["dev", "system:authenticated"]));
    let wish =
        json!({"verb": "get", "version": "v1", "resource": "nodes", "subresource": "metrics", "name": "n1"});
    assert_eq!(reviews[0]["spec"]["resourceAttributes"], wish);
}

#[tokio::test]
async fn a_token_is_reviewed_and_then_its_user() {
    let node = Node::start().await;
    let bearer = |token| [("authorization", token)];
    let answer =
        send(&node, None, request(Method::GET, "/stats/summary", &bearer("Bearer token-of-jane"))).await;
    assert_eq!(answer.status(), 200);
    let answer =
        send(&node, None, request(Method::GET, "/stats/summary", &bearer("Bearer token-of-eve"))).await;
    assert_eq!(answer.status(), 403);
    let words = "Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[stats])\n";
    assert_eq!(text(answer).await, words);
    let kinds: Vec<_> = node.api.reviews.lock().unwrap().iter().map(|r| r["kind"].clone()).collect();
    assert_eq!(kinds, ["TokenReview", "SubjectAccessReview", "TokenReview", "SubjectAccessReview"]);
}

#[tokio::test]
async fn leave_to_look_at_a_node_is_not_leave_to_run_commands() {
    let node = Node::start().await;
    let as_jane = async |path: &str| {
        let headers = [("connection", "upgrade"), ("upgrade", "websocket")];
        send(&node, Some(node.authority.identity("jane", "dev")), request(Method::GET, path, &headers)).await
    };
    assert_eq!(as_jane("/pods").await.status(), 200);
    for path in
        ["/exec/shop/web/app?output=1&command=id", "/attach/shop/web/app?output=1", "/portForward/shop/web"]
    {
        let answer = as_jane(path).await;
        assert_eq!(answer.status(), 403);
        assert!(text(answer).await.contains("verb=create"));
    }
}

#[tokio::test]
async fn paths_and_methods_that_there_are_not_are_refused() {
    let node = Node::start().await;
    assert_eq!(get(&node, "/nothing").await.0, 404);
    assert_eq!(ask(&node, Method::POST, "/checkpoint/shop/web/app").await.0, 404);
    assert_eq!(get(&node, "/containerLogs/shop/web").await.0, 404);
    assert_eq!(get(&node, "/pods/%ff").await.0, 400);
    let (status, headers, _) = ask(&node, Method::POST, "/pods").await;
    assert_eq!((status, headers["allow"].to_str().unwrap()), (405, "GET"));
    assert_eq!(ask(&node, Method::DELETE, "/exec/shop/web/app").await.0, 405);
}

#[tokio::test]
async fn the_server_ends_with_the_shutdown() {
    let mut node = Node::start().await;
    let _idle = crate::client::connect(&node, None).await;
    node.shutdown.cancel();
    soon(node.listening.take().unwrap().task).await.unwrap();
    assert!(tokio::net::TcpStream::connect(node.address).await.is_err());
}
