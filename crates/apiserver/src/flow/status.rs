//! Follows FlowSchemas and PriorityLevelConfigurations, puts them in force, and says of each schema whether the level that
//! it names exists.

use std::sync::{Arc, Weak};

use apimachinery::{ApiError, Object, meta};
use kinds::apiextensions::names;
use store::Revision;

use super::{
    adjusting,
    snapshot::{Snapshot, level_of},
};
use crate::{catalogue::Served, custom, server::Inner};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// The condition of a schema whose level does not exist.
const DANGLING: &str = "Dangling";

struct Follower {
    schemas: Arc<Served>,
    levels: Arc<Served>,
}

/// Puts in force what is there, and follows it.
pub fn start(inner: &Arc<Inner>) -> Result<(), ApiError> {
    let (Some(schemas), Some(levels)) =
        (inner.preferred(GROUP, "flowschemas"), inner.preferred(GROUP, "prioritylevelconfigurations"))
    else {
        return Ok(());
    };
    let follower = Follower { schemas, levels };
    let (since, wrong) = follower.enforce(inner)?;
    tokio::spawn(follower.run(Arc::downgrade(inner), since, wrong));
    let (alarm, served) = (inner.flow.alarm.clone(), Arc::downgrade(inner));
    tokio::spawn(async move {
        adjusting::drive(&alarm, |occasion| Some(served.upgrade()?.flow.adjust(occasion))).await;
    });
    Ok(())
}

impl Follower {
    async fn run(self, inner: Weak<Inner>, mut since: Revision, mut wrong: Vec<Object>) {
        loop {
            let (mut schemas, mut levels) = {
                let Some(inner) = inner.upgrade() else { return };
                self.tell(&inner, std::mem::take(&mut wrong)).await;
                let open = |served: &Served| inner.config.store.watch(&served.prefix, since);
                match (open(&self.schemas), open(&self.levels)) {
                    (Ok(schemas), Ok(levels)) => (schemas, levels),
                    // History that is gone does not matter: the present is read again.
                    _ => match self.enforce(&inner) {
                        Ok(seen) => {
                            (since, wrong) = seen;
                            continue;
                        }
                        Err(error) => {
                            tracing::error!(%error, "flow schemas cannot be read");
                            return;
                        }
                    },
                }
            };
            loop {
                let changed = tokio::select! { at = schemas.changed() => at, at = levels.changed() => at };
                if changed.is_err() {
                    break;
                }
                let Some(inner) = inner.upgrade() else { return };
                match self.enforce(&inner) {
                    Ok((at, wrong)) => {
                        since = at;
                        self.tell(&inner, wrong).await;
                    }
                    Err(error) => tracing::warn!(%error, "flow schemas cannot be read"),
                }
            }
        }
    }

    /// Replaces the snapshot by what is stored. Returns the revision of that, and the schemas whose condition is wrong.
    fn enforce(&self, inner: &Inner) -> Result<(Revision, Vec<Object>), ApiError> {
        let list = |served: &Served| {
            let page = inner.config.store.list(&served.prefix, None, 0, None).map_err(ApiError::internal)?;
            let objects: Result<Vec<Object>, ApiError> =
                page.entries.iter().map(|e| served.object(e)).collect();
            Ok::<_, ApiError>((objects?, page.revision))
        };
        let (schemas, at) = list(&self.schemas)?;
        let (levels, also) = list(&self.levels)?;
        let old = inner.flow.snapshot.load_full();
        let new = Snapshot::new(&schemas, &levels, inner.config.seats, &inner.flow, Some(&old));
        inner.flow.snapshot.store(Arc::new(new));
        inner.flow.rearranged();
        let exists = |schema: &Object| levels.iter().any(|level| meta::name(level) == level_of(schema));
        let wrong = schemas.into_iter().filter(|schema| !said(schema, exists(schema))).collect();
        Ok((at.min(also), wrong))
    }

    /// Writes conditions.
    async fn tell(&self, inner: &Inner, wrong: Vec<Object>) {
        let writes = wrong.iter().map(|schema| async move {
            let exists = inner.config.store.get(&self.levels.key("", level_of(schema))).is_some();
            let written = custom::write_status(inner, &self.schemas, meta::name(schema), |old| {
                if level_of(old) != level_of(schema) || said(old, exists) {
                    return None;
                }
                let mut new = old.clone();
                let (reason, message) = words(level_of(old), exists);
                names::set_condition(&mut new, DANGLING, !exists, reason, &message, (inner.config.now)());
                Some(new)
            });
            if let Err(error) = written.await
                && !matches!(error.code, 404 | 409)
            {
                tracing::warn!(%error, name = meta::name(schema), "the status of a flow schema was not written");
            }
        });
        futures::future::join_all(writes).await;
    }
}

fn words(level: &str, exists: bool) -> (&'static str, String) {
    let refers = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    match exists {
        true => ("Found", format!("{refers} and it exists")),
        false => ("NotFound", format!("{refers} but there is no such object")),
    }
}

/// Whether the schema's condition says so already.
fn said(schema: &Object, exists: bool) -> bool {
    let (reason, message) = words(level_of(schema), exists);
    let mut conditions = schema["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| {
        c["type"] == DANGLING
            && (c["status"] == "True") != exists
            && c["reason"] == reason
            && c["message"] == message.as_str()
    })
}
