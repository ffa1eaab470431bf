//! The gRPC health protocol (grpc.health.v1), one call: small enough to be spoken by hand.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Answer, dial::Dialer};

/// Bytes of an answer that are read; a health answer has seven.
const ANSWER_LIMIT: usize = 4 << 10;

/// Asks for the health of `service`.
pub(super) async fn answer(
    dialer: &Dialer,
    host: &str,
    port: u16,
    service: &str,
    timeout: Duration,
) -> Answer {
    let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let stream = match dialer.connect(host, port, timeout).await {
        Ok(stream) => stream,
        Err(why) => {
            return Answer::Failure(format!(
                "timeout: failed to connect service {place:?} within {}s: {why}",
                timeout.as_secs()
            ));
        }
    };
    match tokio::time::timeout(timeout, check(TokioIo::new(stream), &place, service)).await {
        Ok(Ok(1)) => Answer::Success,
        Ok(Ok(code)) => {
            let word = match code {
                0 => "UNKNOWN".to_owned(),
                2 => "NOT_SERVING".to_owned(),
                3 => "SERVICE_UNKNOWN".to_owned(),
                other => other.to_string(),
            };
            Answer::Failure(format!("service unhealthy (responded with {word:?})"))
        }
        Ok(Err((12, why))) => Answer::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {why}"
        )),
        Ok(Err((_, why))) => Answer::Failure(format!("error: health rpc probe failed: {why}")),
        Err(_) => {
            Answer::Failure(format!("timeout: health rpc did not complete within {}s", timeout.as_secs()))
        }
    }
}

/// The status field of the answer, or (gRPC code, message).
async fn check(io: TokioIo<tokio::net::TcpStream>, place: &str, service: &str) -> Result<u64, (u32, String)> {
    const UNAVAILABLE: u32 = 14;
    let lost = |e: &dyn std::fmt::Display| (UNAVAILABLE, format!("rpc error: code = Unavailable desc = {e}"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(|e| lost(&e))?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let request = Request::post(format!("http://{place}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(Bytes::from(message(service))))
        .map_err(|e| lost(&e))?;
    let response = sender.send_request(request).await.map_err(|e| lost(&e))?;
    if let Some(failed) = status(response.headers()).filter(|(code, _)| *code != 0) {
        return Err(failed);
    }
    let mut body = response.into_body();
    let (mut bytes, mut trailers) = (vec![], HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|e| lost(&e))?.into_data() {
            Ok(data) if bytes.len() + data.len() <= ANSWER_LIMIT => bytes.extend_from_slice(&data),
            Ok(_) => return Err((8, "the answer is too long".into())),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    match status(&trailers) {
        Some((0, _)) => parse(&bytes).ok_or_else(|| (13, "the answer is not a health status".into())),
        Some(failed) => Err(failed),
        None => Err((13, "the answer has no status".into())),
    }
}

fn status(headers: &HeaderMap) -> Option<(u32, String)> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let code = text("grpc-status")?.parse().ok()?;
    Some((code, text("grpc-message").unwrap_or_default().to_owned()))
}

/// A HealthCheckRequest in its length-prefixed frame.
fn message(service: &str) -> Vec<u8> {
    let mut proto = vec![];
    if !service.is_empty() {
        proto.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            proto.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        proto.push(length as u8);
        proto.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(proto.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(proto);
    frame
}

/// The status of a HealthCheckResponse in its frame.
fn parse(frame: &[u8]) -> Option<u64> {
    let (head, proto) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 || usize::try_from(length).ok()? != proto.len() {
        return None;
    }
    match proto {
        // proto3 leaves a zero out
        [] => Some(0),
        [0x08, rest @ ..] => rest.iter().take(10).enumerate().try_fold(0u64, |value, (i, byte)| {
            Some(value | u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(i).ok()?)?)
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Response};
    use http_body_util::StreamBody;
    use hyper::{body::Frame, service::service_fn};

    /// A health service that answers for the service "good" only.
    async fn server() -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let asked = request.into_body().collect().await?.to_bytes();
                    let good = asked.ends_with(b"good");
                    let (answer, code) = if good { (vec![0, 0, 0, 0, 2, 8, 1], "0") } else { (vec![], "5") };
                    let trailers = HeaderMap::from_iter([(
                        http::HeaderName::from_static("grpc-status"),
                        HeaderValue::from_static(code),
                    )]);
                    let frames = [Frame::data(Bytes::from(answer)), Frame::trailers(trailers)];
                    let body =
                        StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
                    Ok::<_, hyper::Error>(Response::new(body))
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        port
    }

    #[tokio::test]
    async fn a_service_that_serves_is_healthy_and_any_other_is_not() {
        let port = server().await;
        let ask = async |service: &str| {
            answer(&Dialer::default(), "127.0.0.1", port, service, Duration::from_secs(5)).await
        };
        assert_eq!(ask("good").await, Answer::Success);
        assert!(matches!(ask("other").await, Answer::Failure(_)));
    }

    #[test]
    fn requests_and_answers_are_protobuf_in_grpc_frames() {
        assert_eq!(message(""), [0, 0, 0, 0, 0]);
        assert_eq!(message("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(message(&"x".repeat(300))[5..8], [0x0a, 0xac, 2]);
        assert_eq!(parse(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(parse(&[0, 0, 0, 0, 0]), Some(0));
        for bad in [&[][..], &[0, 0, 0, 0, 9, 8, 1], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 9]] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
