//! All workload loops together in bad weather: whatever is done to them, and whatever breaks, they end where they should.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{Node, Pod},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    Controller, Options,
    cluster_loops::Settings,
    node_lifecycle::NodeLifecycle,
    pod_state,
    testing::{
        api::Deletion,
        cluster::{Chaos, Cluster},
        nodes::Life,
    },
    world::Kind,
};

/// Something that a user does or that befalls the cluster.
#[derive(Clone, Debug)]
enum Event {
    ScaleDeployment(u8),
    ScaleSet(u8),
    /// Another template for the Deployment (0), the StatefulSet (1) or the DaemonSet (2).
    Change(u8, u8),
    /// The Deployment's strategy.
    Strategy(bool),
    Pause(bool),
    /// The pod with this number is deleted, or ends as failed.
    DeletePod(u16),
    FailPod(u16),
    LoseNode(u8),
    AddNode(u8),
    /// Nothing new is scheduled there, what runs there goes if the second is true.
    Taint(u8, bool),
    Restart,
    /// Nothing but time.
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u8..6).prop_map(Event::ScaleDeployment),
        (0_u8..5).prop_map(Event::ScaleSet),
        (0_u8..3, 0_u8..4).prop_map(|(what, version)| Event::Change(what, version)),
        any::<bool>().prop_map(Event::Strategy),
        any::<bool>().prop_map(Event::Pause),
        any::<u16>().prop_map(Event::DeletePod),
        any::<u16>().prop_map(Event::FailPod),
        (0_u8..4).prop_map(Event::LoseNode),
        (0_u8..4).prop_map(Event::AddNode),
        (0_u8..4, any::<bool>()).prop_map(|(node, evict)| Event::Taint(node, evict)),
        Just(Event::Restart),
        (0_u8..20).prop_map(Event::Wait),
    ]
}

fn loops() -> Vec<Box<dyn Controller>> {
    crate::all(&Options::default())
}

/// The cluster's own loops too, but for the one that misses the kubelets' heartbeats.
fn all_loops() -> Vec<Box<dyn Controller>> {
    let cluster = Settings {
        ca: "PEM".to_owned(),
        sign: None,
        authority: None,
        pod_networks: Vec::new(),
        volumes: None,
        disks: None,
    };
    let mut loops = crate::all(&Options { cluster: Some(cluster) });
    loops.retain(|one| one.name() != NodeLifecycle::default().name());
    loops
}

fn template(app: &str, version: u8) -> Value {
    json!({"metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": format!("v{version}")}]}})
}

fn cluster(seed: u64, lost: u32, loops: fn() -> Vec<Box<dyn Controller>>) -> Cluster {
    let mut cluster = Cluster::new(3, seed, Some(Chaos { lost, turns: 3 }), loops);
    cluster.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}));
    let ends = |pod: &Pod| pod.metadata.labels.as_ref().is_some_and(|l| l.contains_key("job-name"));
    cluster
        .nodes
        .set_fate(Arc::new(move |pod: &Pod| if ends(pod) { Life::ends(3, 0) } else { Life::long() }));
    let workload = |kind: &str, app: &str, more: Value| {
        let mut spec = json!({"selector": {"matchLabels": {"app": app}}, "template": template(app, 0)});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"namespace": "n", "name": app}, "spec": spec})
    };
    cluster.create(workload("Deployment", "web", json!({"replicas": 3})));
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}]);
    cluster.create(workload(
        "StatefulSet",
        "db",
        json!({"replicas": 2, "serviceName": "db", "volumeClaimTemplates": claims}),
    ));
    cluster.create(workload("DaemonSet", "agent", json!({})));
    cluster.create(
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "n", "name": "job"},
        "spec": {"completions": 4, "parallelism": 2, "backoffLimit": 1000,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}),
    );
    cluster
}

fn happen(cluster: &mut Cluster, event: &Event) {
    let pod = |cluster: &Cluster, number: u16| -> Option<String> {
        let pods = cluster.list_of::<Pod>("n");
        pods.get(usize::from(number) % pods.len().max(1))?.metadata.name.clone()
    };
    match event {
        Event::ScaleDeployment(n) => {
            cluster.patch::<Deployment>("n", "web", &json!({"spec": {"replicas": n}}));
        }
        Event::ScaleSet(n) => {
            cluster.patch::<StatefulSet>("n", "db", &json!({"spec": {"replicas": n}}));
        }
        Event::Change(0, v) => {
            cluster.patch::<Deployment>("n", "web", &json!({"spec": {"template": template("web", *v)}}));
        }
        Event::Change(1, v) => {
            cluster.patch::<StatefulSet>("n", "db", &json!({"spec": {"template": template("db", *v)}}));
        }
        Event::Change(_, v) => {
            cluster.patch::<DaemonSet>("n", "agent", &json!({"spec": {"template": template("agent", *v)}}));
        }
        Event::Strategy(recreate) => {
            let kind = if *recreate { "Recreate" } else { "RollingUpdate" };
            let strategy = json!({"type": kind, "rollingUpdate": null});
            cluster.patch::<Deployment>("n", "web", &json!({"spec": {"strategy": strategy}}));
        }
        Event::Pause(paused) => {
            cluster.patch::<Deployment>("n", "web", &json!({"spec": {"paused": paused}}));
        }
        Event::DeletePod(number) => {
            if let Some(name) = pod(cluster, *number) {
                cluster.delete::<Pod>("n", &name);
            }
        }
        Event::FailPod(number) => {
            if let Some(name) = pod(cluster, *number) {
                cluster.patch_status::<Pod>("n", &name, &json!({"status": {"phase": "Failed"}}));
            }
        }
        Event::LoseNode(n) => cluster.lose_node(&format!("node-{n}")),
        Event::AddNode(n) => {
            if cluster.get::<Node>("", &format!("node-{n}")).is_none() {
                cluster.add_node(&format!("node-{n}"));
            }
        }
        Event::Taint(n, evict) => {
            let effect = if *evict { "NoExecute" } else { "NoSchedule" };
            let taints = json!({"spec": {"taints": [{"key": "k", "effect": effect}]}});
            cluster.patch::<Node>("", &format!("node-{n}"), &taints);
        }
        Event::Restart => cluster.restart(),
        Event::Wait(seconds) => cluster.run(i64::from(*seconds)),
    }
    cluster.run_checked(k8s_openapi::jiff::SignedDuration::from_millis(700), |_| {});
}

/// Everything that is asked for is there, at the version that is asked for, and told.
fn check(cluster: &Cluster) {
    let pods = cluster.list_of::<Pod>("n");
    let image = |template: &k8s_openapi::api::core::v1::PodTemplateSpec| {
        template.spec.as_ref().unwrap().containers[0].image.clone()
    };
    let of = |app: &str| -> Vec<&Pod> {
        let has = |p: &Pod| {
            p.metadata.labels.as_ref().is_some_and(|l| l.get("app").map(String::as_str) == Some(app))
        };
        pods.iter().filter(|p| pod_state::is_active(p) && has(p)).collect()
    };
    let images = |app: &str| -> Vec<_> {
        of(app).iter().map(|p| p.spec.as_ref().unwrap().containers[0].image.clone()).collect()
    };

    let web = cluster.get::<Deployment>("n", "web").unwrap();
    let wanted = web.spec.replicas.unwrap();
    assert_eq!(images("web"), vec![image(&web.spec.template); usize::try_from(wanted).unwrap()]);
    let told = web.status.unwrap();
    assert_eq!(told.available_replicas.unwrap_or(0), wanted);
    assert_eq!(told.observed_generation, web.metadata.generation);
    let sets = cluster.list_of::<ReplicaSet>("n");
    assert_eq!(sets.iter().filter(|s| s.spec.replicas != Some(0)).count(), usize::from(wanted > 0));

    let db = cluster.get::<StatefulSet>("n", "db").unwrap();
    let wanted = db.spec.replicas.unwrap();
    let names: Vec<_> = of("db").iter().map(|p| p.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, (0..wanted).map(|n| format!("db-{n}")).collect::<Vec<_>>());
    assert_eq!(images("db"), vec![image(&db.spec.template); usize::try_from(wanted).unwrap()]);
    let told = db.status.unwrap();
    assert_eq!((told.ready_replicas.unwrap_or(0), &told.current_revision), (wanted, &told.update_revision));

    let agent = cluster.get::<DaemonSet>("n", "agent").unwrap();
    let nodes = cluster.list_of::<Node>("");
    let is_clean = |n: &&Node| n.spec.as_ref().and_then(|s| s.taints.as_ref()).is_none_or(Vec::is_empty);
    let clean = nodes.iter().filter(is_clean).count();
    let told = agent.status.unwrap();
    assert_eq!(usize::try_from(told.desired_number_scheduled).unwrap(), clean);
    assert_eq!(usize::try_from(told.number_available.unwrap_or(0)).unwrap(), clean);
    assert!(images("agent").iter().all(|i| *i == image(&agent.spec.template)));

    let job = cluster.get::<Job>("n", "job").unwrap();
    let told = job.status.unwrap();
    assert_eq!((told.succeeded, told.completion_time.is_some()), (Some(4), true));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn everything_ends_as_it_is_asked_for(
        seed in 0_u64..1000,
        lost in prop_oneof![Just(0_u32), Just(8)],
        events in proptest::collection::vec(event(), 0..14),
    ) {
        let mut cluster = cluster(seed, lost, loops);
        for event in &events {
            happen(&mut cluster, event);
        }
        // In the end there is somewhere to be, and nothing is paused.
        cluster.add_node("safe");
        happen(&mut cluster, &Event::Pause(false));
        cluster.run(3600);
        check(&cluster);
        let (plans, revision) = (cluster.plans, cluster.api.revision());
        cluster.run(3600);
        prop_assert_eq!((cluster.plans, cluster.api.revision()), (plans, revision), "it does not come to rest");
    }
    #[test]
    fn what_is_deleted_takes_with_it_what_it_has_made(
        seed in 0_u64..1000,
        events in proptest::collection::vec(event(), 0..8),
        foreground in any::<bool>(),
    ) {
        let mut cluster = cluster(seed, 4, all_loops);
        cluster.nodes.collects = false;
        for event in &events {
            happen(&mut cluster, event);
        }
        cluster.add_node("safe");
        happen(&mut cluster, &Event::Pause(false));
        cluster.run(3600);
        check(&cluster);
        let propagation = Some(if foreground { "Foreground" } else { "Background" });
        for (kind, name) in [
            (Kind::of::<Deployment>(), "web"),
            (Kind::of::<StatefulSet>(), "db"),
            (Kind::of::<DaemonSet>(), "agent"),
            (Kind::of::<Job>(), "job"),
        ] {
            let deletion = Deletion { propagation, ..Deletion::default() };
            cluster.api.delete((&kind, "n", name), &deletion).unwrap();
        }
        cluster.run(3600);
        prop_assert_eq!(cluster.list_of::<Pod>("n").len(), 0);
        prop_assert_eq!(cluster.list_of::<ReplicaSet>("n").len(), 0);
        prop_assert_eq!(cluster.list_of::<ControllerRevision>("n").len(), 0);
        let owners = cluster.list_of::<Deployment>("n").len() + cluster.list_of::<StatefulSet>("n").len()
            + cluster.list_of::<DaemonSet>("n").len() + cluster.list_of::<Job>("n").len();
        prop_assert_eq!(owners, 0);
    }
}
