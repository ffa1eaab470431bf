use std::sync::Mutex;

use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    jiff::SignedDuration,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    Backoff, Change, Target, Write,
    plan::Failure,
    testing::{at, object},
};

/// Plans whatever it is told to, and remembers what it was asked.
#[derive(Default)]
struct Puppet {
    plans: Arc<Mutex<Vec<Plan>>>,
    asked: Arc<Mutex<Vec<(Key, Outcome)>>>,
}

impl Controller for Puppet {
    fn name(&self) -> &'static str {
        "puppet"
    }
    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<ConfigMap>(), Kind::of::<Pod>()]
    }
    fn keys(&self, change: &Change, _: &World) -> Vec<Key> {
        change.object::<ConfigMap>().map(|o| Key::of(&o.metadata)).into_iter().collect()
    }
    fn reconcile(&self, key: &Key, _: &World, last: &Outcome, _: Timestamp) -> Plan {
        self.asked.lock().unwrap().push((key.clone(), last.clone()));
        let mut plans = self.plans.lock().unwrap();
        if plans.is_empty() { Plan::none() } else { plans.remove(0) }
    }
    fn backoff(&self) -> Backoff {
        Backoff { first: SignedDuration::from_secs(1), most: SignedDuration::from_secs(3) }
    }
}

struct Bench {
    core: Core,
    plans: Arc<Mutex<Vec<Plan>>>,
    asked: Arc<Mutex<Vec<(Key, Outcome)>>>,
}

impl Bench {
    /// A core with one loop that has listed everything and found nothing.
    fn new() -> Self {
        let puppet = Puppet::default();
        let (plans, asked) = (puppet.plans.clone(), puppet.asked.clone());
        let mut core = Core::new(vec![Box::new(puppet)]);
        for kind in [Kind::of::<ConfigMap>(), Kind::of::<Pod>()] {
            core.listed(&kind, |_| false, 0, at(0));
        }
        Self { core, plans, asked }
    }

    fn will(&self, plan: Plan) {
        self.plans.lock().unwrap().push(plan);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn see(&mut self, revision: u64, now: i64) {
        self.core.apply(&Kind::of::<ConfigMap>(), config(revision), false, at(now));
    }

    fn see_pod(&mut self, name: &str, revision: u64, gone: bool, now: i64) {
        let pod: Pod = object(json!({"metadata": {"namespace": "n", "name": name, "uid": name,
            "resourceVersion": revision.to_string()}}));
        self.core.apply(&Kind::of::<Pod>(), Arc::new(pod), gone, at(now));
    }
}

fn config(revision: u64) -> Arc<ConfigMap> {
    Arc::new(object(json!({"metadata": {"namespace": "n", "name": "c", "uid": "c",
        "resourceVersion": revision.to_string()}})))
}

fn writes() -> Plan {
    let mut plan = Plan::none();
    plan.then(Write::create(&*config(0)));
    plan
}

fn wrote(revision: u64) -> Report {
    let answers = vec![Answer::Written { kind: Kind::of::<Pod>(), revision }];
    Report { answers, ..Report::default() }
}

fn failed() -> Report {
    let write = Write::create(&*config(0));
    let failure =
        Failure { write, code: 500, reason: String::new(), message: String::new(), causes: Vec::new() };
    Report { failures: vec![failure], ..Report::default() }
}

#[test]
fn a_loop_is_not_asked_before_everything_it_watches_is_listed() {
    let puppet = Puppet::default();
    let asked = puppet.asked.clone();
    let mut core = Core::new(vec![Box::new(puppet)]);
    core.apply(&Kind::of::<ConfigMap>(), config(1), false, at(0));
    core.listed(&Kind::of::<ConfigMap>(), |_| true, 1, at(0));
    assert!(core.next(at(0)).is_none());
    assert!(asked.lock().unwrap().is_empty());
    core.listed(&Kind::of::<Pod>(), |_| true, 1, at(0));
    core.next(at(0));
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[test]
fn a_key_waits_until_the_world_holds_what_it_wrote() {
    let mut bench = Bench::new();
    bench.will(writes());
    bench.see(1, 0);
    let work = bench.core.next(at(0)).unwrap();
    bench.core.done(&work.id, wrote(10), at(0));
    bench.see(2, 0);
    assert!(bench.core.next(at(0)).is_none());
    assert_eq!(bench.asked(), 1);
    bench.see_pod("p", 9, false, 0);
    assert!(bench.core.next(at(0)).is_none());
    assert_eq!(bench.asked(), 1, "revision 9 is not yet 10");
    bench.see_pod("p", 10, false, 0);
    bench.core.next(at(0));
    assert_eq!(bench.asked(), 2);
}

#[test]
fn a_key_waits_until_what_it_deleted_is_seen_going() {
    let mut bench = Bench::new();
    bench.see_pod("p", 1, false, 0);
    bench.will(writes());
    bench.see(1, 0);
    let work = bench.core.next(at(0)).unwrap();
    let target = Target {
        kind: Kind::of::<Pod>(),
        namespace: "n".to_owned(),
        name: "p".to_owned(),
        uid: "p".to_owned(),
    };
    let report = Report { answers: vec![Answer::Gone(target)], ..Report::default() };
    bench.core.done(&work.id, report, at(0));
    bench.see(2, 0);
    bench.core.next(at(0));
    assert_eq!(bench.asked(), 1);
    bench.see_pod("p", 5, true, 0);
    bench.core.next(at(0));
    assert_eq!(bench.asked(), 2);
}

#[test]
fn a_list_that_began_after_a_write_ends_the_wait_for_it() {
    let mut bench = Bench::new();
    bench.will(writes());
    bench.see(1, 0);
    let work = bench.core.next(at(0)).unwrap();
    bench.core.done(&work.id, wrote(10), at(0));
    bench.see(2, 0);
    assert!(bench.core.next(at(0)).is_none());
    bench.core.listed(&Kind::of::<Pod>(), |_| true, 10, at(0));
    bench.core.next(at(0));
    assert_eq!(bench.asked(), 2);
}

#[test]
fn a_write_that_never_shows_up_holds_a_key_for_five_minutes_at_most() {
    let mut bench = Bench::new();
    bench.will(writes());
    bench.see(1, 0);
    let work = bench.core.next(at(0)).unwrap();
    bench.core.done(&work.id, wrote(10), at(0));
    bench.see(2, 1);
    assert!(bench.core.next(at(1)).is_none());
    assert_eq!(bench.core.deadline(), Some(at(300)));
    bench.core.next(at(300));
    assert_eq!(bench.asked(), 2);
}

#[test]
fn plans_of_one_key_are_never_carried_out_at_once() {
    let mut bench = Bench::new();
    bench.will(writes());
    bench.will(writes());
    bench.see(1, 0);
    let work = bench.core.next(at(0)).unwrap();
    bench.see(2, 0);
    assert!(bench.core.next(at(0)).is_none());
    bench.core.done(&work.id, Report::default(), at(0));
    assert!(bench.core.next(at(0)).is_some());
}

#[test]
fn a_failed_plan_is_asked_for_again_later_each_time_and_hears_what_failed() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.will(writes());
    }
    bench.see(1, 0);
    let mut now = 0;
    for wait in [1, 2, 3] {
        let work = bench.core.next(at(now)).unwrap();
        bench.core.done(&work.id, failed(), at(now));
        assert!(bench.core.next(at(now)).is_none());
        assert_eq!(bench.core.deadline(), Some(at(now + wait)));
        now += wait;
    }
    bench.core.next(at(now));
    let asked = bench.asked.lock().unwrap();
    assert_eq!((asked[3].1.tries, asked[3].1.failures.len()), (3, 1));
}

#[test]
fn what_a_plan_asks_to_remember_comes_back() {
    let mut bench = Bench::new();
    bench.will(Plan { memory: Some(json!(7)), ..Plan::none() });
    bench.see(1, 0);
    bench.core.next(at(0));
    bench.will(Plan { memory: Some(Value::Null), ..Plan::none() });
    bench.see(2, 0);
    bench.core.next(at(0));
    bench.see(3, 0);
    bench.core.next(at(0));
    let asked = bench.asked.lock().unwrap();
    let memories: Vec<&Value> = asked.iter().map(|(_, outcome)| &outcome.memory).collect();
    assert_eq!(memories, [&Value::Null, &json!(7), &Value::Null]);
    assert!(bench.core.states.is_empty(), "nothing is kept of a key that is at rest");
}

#[test]
fn objects_missing_from_a_list_are_gone() {
    let mut bench = Bench::new();
    bench.see(1, 0);
    bench.core.next(at(0));
    bench.core.listed(&Kind::of::<ConfigMap>(), |_| false, 5, at(0));
    assert!(bench.core.world().get::<ConfigMap>("n", "c").is_none());
    bench.core.next(at(0));
    assert_eq!(bench.asked(), 2);
}

#[test]
fn a_key_that_asked_for_it_is_looked_at_again_at_its_time() {
    let mut bench = Bench::new();
    let mut plan = Plan::none();
    plan.wake(at(60));
    bench.will(plan);
    bench.see(1, 0);
    assert!(bench.core.next(at(0)).is_none());
    assert_eq!(bench.core.deadline(), Some(at(60)));
    bench.core.next(at(60));
    assert_eq!(bench.asked(), 2);
    assert_eq!(bench.core.deadline(), None);
}

#[test]
fn a_plan_that_wants_another_look_at_once_gets_it_when_its_writes_are_seen_and_not_before_it_may_retry() {
    let mut bench = Bench::new();
    let mut plan = writes();
    plan.wake(at(0));
    bench.will(plan.clone());
    bench.will(plan);
    bench.see(1, 0);
    let work = bench.core.next(at(0)).unwrap();
    assert!(bench.core.next(at(0)).is_none());
    bench.core.done(&work.id, wrote(10), at(0));
    assert!(bench.core.next(at(0)).is_none());
    bench.see_pod("p", 10, false, 0);
    let work = bench.core.next(at(0)).unwrap();
    bench.core.done(&work.id, failed(), at(0));
    assert!(bench.core.next(at(0)).is_none());
    assert_eq!(bench.core.deadline(), Some(at(1)));
}

fn told(path: &str) -> Report {
    let ask = crate::Ask::get(path.to_owned());
    Report { told: vec![crate::Told { ask, answer: Ok(json!(1)) }], ..Report::default() }
}

fn asks(path: &str) -> Plan {
    Plan::asking(vec![crate::Ask::get(path.to_owned())])
}

#[test]
fn answers_gather_until_a_plan_asks_nothing_and_what_failed_before_is_remembered_meanwhile() {
    let mut bench = Bench::new();
    bench.will(writes());
    bench.will(asks("/a"));
    bench.will(asks("/b"));
    bench.will(Plan::none());
    bench.see(1, 0);
    let work = bench.core.next(at(0)).unwrap();
    bench.core.done(&work.id, failed(), at(0));
    for path in ["/a", "/b"] {
        let work = bench.core.next(at(1)).unwrap();
        assert_eq!(work.plan.asks.len(), 1);
        bench.core.done(&work.id, told(path), at(1));
    }
    assert!(bench.core.next(at(1)).is_none());
    bench.see(2, 2);
    bench.core.next(at(2));
    let asked = bench.asked.lock().unwrap();
    let answers: Vec<usize> = asked.iter().map(|(_, last)| last.answers.len()).collect();
    assert_eq!(answers, [0, 0, 1, 2, 0]);
    let failures: Vec<usize> = asked.iter().map(|(_, last)| last.failures.len()).collect();
    assert_eq!(failures, [0, 1, 1, 1, 0]);
}

#[test]
fn what_has_been_answered_is_not_asked_again() {
    let mut bench = Bench::new();
    bench.will(asks("/a"));
    bench.will(asks("/a"));
    bench.see(1, 0);
    let work = bench.core.next(at(0)).unwrap();
    bench.core.done(&work.id, told("/a"), at(0));
    assert!(bench.core.next(at(0)).is_none(), "the plan has nothing left to do");
    assert_eq!(bench.asked(), 2);
}
