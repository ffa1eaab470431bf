//! What a create costs without a network: `create_cost [COUNT] [protobuf]` makes pods through the server's own service, one
//! after the other, and prints the CPU time of this process a create. A profiler that counts instructions
//! (`valgrind --tool=callgrind`) gives figures that do not depend on what else the machine does.

use std::{sync::Arc, time::Duration};

use access::{
    UserInfo, admission,
    rbac::{Masters, Rbac},
};
use apiserver::{Config, Server};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::Service as _;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let count: u32 = arguments.next().map_or(Ok(2000), |n| n.parse())?;
    let media = match arguments.next().as_deref() {
        Some("protobuf") => "application/vnd.kubernetes.protobuf",
        _ => "application/json",
    };
    let folder = tempfile::tempdir()?;
    let resources = kinds::all().to_vec();
    let extract = apiserver::extract(&resources);
    let store = store::Embedded::open(folder.path(), store::Options::default(), extract)?;
    let mut config = Config::new(Arc::clone(&store) as Arc<dyn store::Store>, resources);
    let rbac = Arc::new(Rbac::new(Arc::new(config.reader.clone())));
    config.authorizers = vec![Arc::new(Masters), Arc::clone(&rbac) as _];
    let authorizer: Arc<dyn access::Authorizer> = Arc::new(access::Union(config.authorizers.clone()));
    config.admission = admission::chain(Arc::clone(&rbac), &authorizer);
    config.bootstrap = access::bootstrap::rbac_objects().into_iter().map(|(_, object)| object).collect();
    let server = Server::new(config);
    server.start().await?;
    let mut service = server.service_as(UserInfo {
        name: "admin".to_owned(),
        groups: vec!["system:masters".to_owned(), access::AUTHENTICATED.to_owned()],
        ..UserInfo::default()
    });
    let mut post = async |path: &str, object: &Value, media: &str| {
        let body = match media {
            "application/json" => object.to_string().into_bytes(),
            _ => {
                let text = |field: &str| object[field].as_str().unwrap_or_default();
                kinds::protobuf::encode(object, text("apiVersion"), text("kind")).ok_or("no protobuf form")?
            }
        };
        let request = http::Request::post(path)
            .header("content-type", media)
            .header("accept", media)
            .body(Full::new(Bytes::from(body)))?;
        let answer = service.call(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status == 201 { Ok(()) } else { Err(Error::from(String::from_utf8_lossy(&body))) }
    };
    let json = "application/json";
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "load"}});
    post("/api/v1/namespaces", &namespace, json).await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    post("/api/v1/namespaces/load/serviceaccounts", &account, json).await?;
    let before = cpu()?;
    for number in 0..count {
        post("/api/v1/namespaces/load/pods", &pod(number), media).await?;
    }
    let spent = cpu()?.saturating_sub(before);
    println!("{count} creates: {:.1} µs of CPU each", spent.as_secs_f64() * 1e6 / f64::from(count));
    Ok(())
}

/// As the load program of `bench/api` makes them.
fn pod(number: u32) -> Value {
    let quantities = json!({"cpu": "100m", "memory": "128Mi"});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("load-{number:06}"),
            "labels": {"app": "load", "part": (number % 100).to_string()},
        },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main",
                "image": "registry.example.com/team/service:1",
                "env": [{"name": "MODE", "value": "production"}],
                "ports": [{"containerPort": 8080}],
                "resources": {"requests": quantities, "limits": quantities},
            }],
        },
    })
}

/// User and system time of this process so far.
fn cpu() -> Result<Duration, Error> {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1;
    let mut times = fields.split_whitespace().skip(11).take(2);
    let mut ticks = 0;
    for time in &mut times {
        ticks += time.parse::<u32>()?;
    }
    Ok(TICK * ticks)
}
