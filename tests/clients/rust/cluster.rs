//! What kube-rs does, against the cluster of KUBECONFIG: one test for each thing that programs written with it rely on.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        authentication::v1::TokenRequest,
        core::v1::{ConfigMap, Namespace, ObjectReference, Pod, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, CustomResource, CustomResourceExt, Error, Resource, ResourceExt,
    api::{
        DeleteParams, DynamicObject, EvictParams, ListParams, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
    core::GroupVersionKind,
    discovery::{self, Discovery, Scope, verbs},
    runtime::{
        Controller,
        controller::Action,
        events::{Event, EventType, Recorder},
        finalizer::{Event as Finalized, finalizer},
        reflector,
        wait::{await_condition, conditions},
        watcher,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace that no other test is in.
async fn alone(client: &Client) -> Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let fresh = serde_json::from_value(json!({"metadata": {"generateName": "kube-rs-"}}))?;
    Ok(namespaces
        .create(&PostParams::default(), &fresh)
        .await?
        .name_any())
}

fn settings(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": value}})).expect("a config map")
}

/// The HTTP code and the reason that a call is refused with.
fn refusal<T>(answer: Result<T, Error>) -> Result<(u16, String)> {
    match answer {
        Err(Error::Api(status)) => Ok((status.code, status.reason)),
        Err(other) => Err(other.into()),
        Ok(_) => bail!("it was not refused"),
    }
}

#[tokio::test]
async fn objects_are_created_read_replaced_patched_and_deleted() -> Result<()> {
    let client = Client::try_default().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &alone(&client).await?);
    let post = PostParams::default();

    let made = maps.create(&post, &settings("one", "1")).await?;
    assert!(made.metadata.creation_timestamp.is_some());
    let (code, reason) = refusal(maps.create(&post, &settings("one", "1")).await)?;
    assert_eq!((code, reason.as_str()), (409, "AlreadyExists"));

    let mut newer = made.clone();
    newer.data.get_or_insert_default().insert("a".into(), "2".into());
    maps.replace("one", &post, &newer).await?;
    let (code, reason) = refusal(maps.replace("one", &post, &made).await)?;
    assert_eq!((code, reason.as_str()), (409, "Conflict"));

    let patch = PatchParams::default();
    maps.patch("one", &patch, &Patch::Merge(json!({"data": {"b": "3"}})))
        .await?;
    maps.patch(
        "one",
        &patch,
        &Patch::Strategic(json!({"metadata": {"labels": {"of": "it"}}})),
    )
    .await?;
    let steps: json_patch::Patch = serde_json::from_value(json!([{"op": "remove", "path": "/data/a"}]))?;
    maps.patch("one", &patch, &Patch::Json::<()>(steps)).await?;
    let now = maps.get("one").await?;
    assert_eq!(now.data, Some([("b".to_string(), "3".to_string())].into()));
    assert_eq!(now.labels().get("of").map(String::as_str), Some("it"));

    maps.delete("one", &DeleteParams::default()).await?;
    assert!(maps.get_opt("one").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn what_is_invalid_is_refused_with_its_causes() -> Result<()> {
    let client = Client::try_default().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &alone(&client).await?);
    match maps
        .create(&PostParams::default(), &settings("Not A Name", "1"))
        .await
    {
        Err(Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
            let causes = status.details.context("no details")?.causes;
            assert_eq!(causes[0].field, "metadata.name");
        }
        other => bail!("not refused as it should: {other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn lists_come_in_pages_and_selected() -> Result<()> {
    let client = Client::try_default().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &alone(&client).await?);
    for index in 0..7 {
        let mut one = settings(&format!("page-{index}"), "1");
        one.labels_mut().insert("odd".into(), (index % 2).to_string());
        maps.create(&PostParams::default(), &one).await?;
    }
    let (mut seen, mut next) = (Vec::new(), None::<String>);
    loop {
        let mut page = ListParams::default().limit(3).labels("odd in (0,1)");
        if let Some(token) = &next {
            page = page.continue_token(token);
        }
        let list = maps.list(&page).await?;
        assert!(list.items.len() <= 3);
        seen.extend(list.items.iter().map(ResourceExt::name_any));
        next = list.metadata.continue_.filter(|token| !token.is_empty());
        if next.is_none() {
            break;
        }
    }
    assert_eq!(
        seen,
        (0..7).map(|index| format!("page-{index}")).collect::<Vec<_>>()
    );
    assert_eq!(
        maps.list(&ListParams::default().labels("odd=1"))
            .await?
            .items
            .len(),
        3
    );
    assert_eq!(
        maps.list(&ListParams::default().fields("metadata.name=page-4"))
            .await?
            .items
            .len(),
        1
    );
    let names = maps.list_metadata(&ListParams::default().labels("odd=0")).await?;
    assert_eq!(names.items.len(), 4);
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("odd"))
        .await?;
    assert!(
        maps.list(&ListParams::default().labels("odd"))
            .await?
            .items
            .is_empty()
    );
    Ok(())
}

#[tokio::test]
async fn a_watch_tells_what_happens_in_order() -> Result<()> {
    let client = Client::try_default().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &alone(&client).await?);
    let from = maps
        .list(&ListParams::default())
        .await?
        .metadata
        .resource_version
        .context("no version")?;
    maps.create(&PostParams::default(), &settings("seen", "1"))
        .await?;
    maps.patch(
        "seen",
        &PatchParams::default(),
        &Patch::Merge(json!({"data": {"a": "2"}})),
    )
    .await?;
    maps.delete("seen", &DeleteParams::default()).await?;
    let only = WatchParams::default().fields("metadata.name=seen");
    let events = timeout(
        PATIENCE,
        maps.watch(&only, &from).await?.take(3).try_collect::<Vec<_>>(),
    )
    .await??;
    let told: Vec<_> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            _ => "else",
        })
        .collect();
    assert_eq!(told, ["added", "modified", "deleted"]);
    Ok(())
}

/// Whichever way it first learns what there is.
async fn store_follows(config: watcher::Config) -> Result<()> {
    let client = Client::try_default().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &alone(&client).await?);
    maps.create(&PostParams::default(), &settings("early", "1"))
        .await?;
    let (store, writer) = reflector::store();
    // All that is told, not objects alone: the store shows what was listed when the list has ended.
    let mut events = reflector::reflector(writer, watcher(maps.clone(), config)).boxed();
    let find = |name: &str| store.state().into_iter().any(|one| one.name_any() == name);
    timeout(PATIENCE, async {
        while !find("early") {
            events.try_next().await?.context("it ended")?;
        }
        maps.create(&PostParams::default(), &settings("late", "1"))
            .await?;
        while !find("late") {
            events.try_next().await?.context("it ended")?;
        }
        maps.delete("late", &DeleteParams::default()).await?;
        while find("late") {
            events.try_next().await?.context("it ended")?;
        }
        anyhow::Ok(())
    })
    .await?
}

#[tokio::test]
async fn a_reflector_that_lists_first_follows() -> Result<()> {
    store_follows(watcher::Config::default().page_size(1)).await
}

#[tokio::test]
async fn a_reflector_that_only_watches_follows() -> Result<()> {
    store_follows(watcher::Config::default().streaming_lists()).await
}

#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "example.com",
    version = "v1",
    kind = "Greeting",
    namespaced,
    status = "GreetingStatus"
)]
#[kube(scale(spec_replicas_path = ".spec.times", status_replicas_path = ".status.said"))]
#[kube(printcolumn(name = "Whom", type_ = "string", json_path = ".spec.whom"))]
struct GreetingSpec {
    #[schemars(length(min = 1))]
    whom: String,
    times: i32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct GreetingStatus {
    said: i32,
}

/// The derived definition, served; tests share it.
async fn greetings(client: &Client) -> Result<Api<Greeting>> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    match definitions.create(&PostParams::default(), &Greeting::crd()).await {
        Err(Error::Api(status)) if status.reason == "AlreadyExists" => {}
        other => drop(other?),
    }
    let served = await_condition(
        definitions,
        "greetings.example.com",
        conditions::is_crd_established(),
    );
    timeout(PATIENCE, served).await??;
    Ok(Api::namespaced(client.clone(), &alone(client).await?))
}

fn greeting(name: &str, whom: &str) -> Greeting {
    Greeting::new(
        name,
        GreetingSpec {
            whom: whom.into(),
            times: 1,
        },
    )
}

#[tokio::test]
async fn a_derived_definition_is_served_with_its_subresources_and_its_schema() -> Result<()> {
    let api = greetings(&Client::try_default().await?).await?;
    api.create(&PostParams::default(), &greeting("hello", "world"))
        .await?;
    let patch = PatchParams::default();

    assert_eq!(
        api.get_scale("hello").await?.spec.context("no scale")?.replicas,
        Some(1)
    );
    api.patch_scale("hello", &patch, &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await?;
    assert_eq!(api.get("hello").await?.spec.times, 3);
    api.patch_status(
        "hello",
        &patch,
        &Patch::Merge(json!({"status": {"said": 2}, "spec": {"times": 9}})),
    )
    .await?;
    let now = api.get_status("hello").await?;
    assert_eq!((now.spec.times, now.status.context("no status")?.said), (3, 2));

    let (code, reason) = refusal(api.create(&PostParams::default(), &greeting("silent", "")).await)?;
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    Ok(())
}

#[tokio::test]
async fn discovery_finds_every_kind_and_each_can_be_listed() -> Result<()> {
    let client = Client::try_default().await?;
    let found = Discovery::new(client.clone()).run().await?;
    let mut listed = 0;
    for group in found.groups() {
        for (kind, can) in group.recommended_resources() {
            if can.supports_operation(verbs::LIST) && kind.group != "example.com" {
                let all: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
                all.list(&ListParams::default().limit(1))
                    .await
                    .with_context(|| kind.kind.clone())?;
                listed += 1;
            }
        }
    }
    assert!(listed > 40, "only {listed} kinds");
    let (kind, can) =
        discovery::pinned_kind(&client, &GroupVersionKind::gvk("apps", "v1", "Deployment")).await?;
    assert_eq!(
        (kind.plural.as_str(), can.scope),
        ("deployments", Scope::Namespaced)
    );
    Ok(())
}

#[tokio::test]
async fn a_controller_reconciles_what_it_owns() -> Result<()> {
    let client = Client::try_default().await?;
    let api = greetings(&client).await?;
    let space = api
        .create(&PostParams::default(), &greeting("owner", "x"))
        .await?
        .namespace()
        .context("none")?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &space);
    let reconcile = |owner: Arc<Greeting>, maps: Arc<Api<ConfigMap>>| async move {
        let mut child = settings("said", &owner.spec.whom);
        let of: OwnerReference = owner
            .controller_owner_ref(&())
            .expect("an owner with a name and a uid");
        child.metadata.owner_references = Some(vec![of]);
        match maps.create(&PostParams::default(), &child).await {
            Err(Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(other) => return Err(other),
            Ok(_) => {}
        }
        Ok(Action::requeue(PATIENCE))
    };
    let controller = Controller::new(api.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .run(
            reconcile,
            |_, _: &Error, _| Action::requeue(Duration::from_secs(1)),
            Arc::new(maps.clone()),
        )
        .for_each(|_| async {});
    let story = async {
        await_condition(maps.clone(), "said", |one: Option<&ConfigMap>| one.is_some()).await?;
        let first = maps.get("said").await?.uid();
        maps.delete("said", &DeleteParams::default()).await?;
        // Its own watch brings it back.
        let again = move |one: Option<&ConfigMap>| one.is_some_and(|found| found.uid() != first);
        await_condition(maps.clone(), "said", again).await?;
        anyhow::Ok(())
    };
    tokio::select! {
        () = controller => bail!("the controller ended"),
        told = timeout(PATIENCE, story) => told??,
    }
    // What it owned goes with it.
    api.delete("owner", &DeleteParams::default()).await?;
    timeout(
        PATIENCE,
        await_condition(maps, "said", |one: Option<&ConfigMap>| one.is_none()),
    )
    .await??;
    Ok(())
}

#[tokio::test]
async fn a_finalizer_holds_what_is_deleted_until_it_is_cleaned_up() -> Result<()> {
    const NAME: &str = "example.com/kept";
    let client = Client::try_default().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &alone(&client).await?);
    let made = maps
        .create(&PostParams::default(), &settings("held", "1"))
        .await?;
    let nothing =
        |_: Finalized<ConfigMap>| async { Ok::<_, std::convert::Infallible>(Action::await_change()) };
    finalizer(&maps, NAME, Arc::new(made), nothing).await?;
    maps.delete("held", &DeleteParams::default()).await?;
    let held = maps.get("held").await?;
    assert!(held.metadata.deletion_timestamp.is_some() && held.finalizers() == [NAME]);
    finalizer(&maps, NAME, Arc::new(held), nothing).await?;
    assert!(maps.get_opt("held").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn events_are_recorded_and_counted() -> Result<()> {
    let client = Client::try_default().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &alone(&client).await?);
    let about: ObjectReference = maps
        .create(&PostParams::default(), &settings("about", "1"))
        .await?
        .object_ref(&());
    let recorder = Recorder::new(client.clone(), "kube-rs".into());
    let said = Event {
        type_: EventType::Normal,
        reason: "Greeted".into(),
        note: Some("hello".into()),
        action: "Greeting".into(),
        secondary: None,
    };
    recorder.publish(&said, &about).await?;
    recorder.publish(&said, &about).await?;
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(client, about.namespace.as_deref().context("no namespace")?);
    let found = events
        .list(&ListParams::default().fields("reason=Greeted"))
        .await?
        .items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].series.as_ref().context("no series")?.count, 2);
    Ok(())
}

#[tokio::test]
async fn accounts_get_tokens_that_say_who_they_are() -> Result<()> {
    let client = Client::try_default().await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &alone(&client).await?);
    let robot = serde_json::from_value(json!({"metadata": {"name": "robot"}}))?;
    accounts.create(&PostParams::default(), &robot).await?;
    let asked: TokenRequest = serde_json::from_value(
        json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600}}),
    )?;
    let given = accounts
        .create_token_request("robot", &PostParams::default(), &asked)
        .await?;
    assert_eq!(
        given
            .status
            .context("no status")?
            .token
            .context("no token")?
            .split('.')
            .count(),
        3
    );
    Ok(())
}

#[tokio::test]
async fn pods_can_be_evicted() -> Result<()> {
    let client = Client::try_default().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &alone(&client).await?);
    let one = json!({"metadata": {"name": "one"}, "spec": {
        "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(one)?)
        .await?;
    assert!(pods.evict("one", &EvictParams::default()).await.is_ok());
    timeout(
        PATIENCE,
        await_condition(pods, "one", |one: Option<&Pod>| one.is_none()),
    )
    .await??;
    Ok(())
}

#[tokio::test]
async fn what_is_applied_belongs_to_whom_applied_it() -> Result<()> {
    let client = Client::try_default().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &alone(&client).await?);
    let of = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": value}});
    maps.patch("applied", &PatchParams::apply("one"), &Patch::Apply(of("1")))
        .await?;
    let (code, reason) = refusal(
        maps.patch("applied", &PatchParams::apply("two"), &Patch::Apply(of("2")))
            .await,
    )?;
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    let forced = maps
        .patch(
            "applied",
            &PatchParams::apply("two").force(),
            &Patch::Apply(of("2")),
        )
        .await?;
    assert_eq!(forced.managed_fields().len(), 1);
    Ok(())
}
