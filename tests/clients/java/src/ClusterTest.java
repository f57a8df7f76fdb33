import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.fabric8.kubernetes.api.model.ConfigMap;
import io.fabric8.kubernetes.api.model.ConfigMapBuilder;
import io.fabric8.kubernetes.api.model.GenericKubernetesResource;
import io.fabric8.kubernetes.api.model.HasMetadata;
import io.fabric8.kubernetes.api.model.ListOptionsBuilder;
import io.fabric8.kubernetes.api.model.Namespaced;
import io.fabric8.kubernetes.api.model.NamespaceBuilder;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.PodBuilder;
import io.fabric8.kubernetes.api.model.ServiceBuilder;
import io.fabric8.kubernetes.api.model.apiextensions.v1.CustomResourceDefinition;
import io.fabric8.kubernetes.api.model.apiextensions.v1.CustomResourceValidation;
import io.fabric8.kubernetes.api.model.apiextensions.v1.CustomResourceValidationBuilder;
import io.fabric8.kubernetes.api.model.apiextensions.v1.JSONSchemaPropsBuilder;
import io.fabric8.kubernetes.api.model.apps.Deployment;
import io.fabric8.kubernetes.api.model.apps.DeploymentBuilder;
import io.fabric8.kubernetes.client.CustomResource;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.Watcher;
import io.fabric8.kubernetes.client.WatcherException;
import io.fabric8.kubernetes.client.dsl.base.PatchContext;
import io.fabric8.kubernetes.client.dsl.base.CustomResourceDefinitionContext;
import io.fabric8.kubernetes.client.dsl.base.PatchType;
import io.fabric8.kubernetes.client.extended.leaderelection.LeaderCallbacks;
import io.fabric8.kubernetes.client.extended.leaderelection.LeaderElectionConfigBuilder;
import io.fabric8.kubernetes.client.extended.leaderelection.resourcelock.LeaseLock;
import io.fabric8.kubernetes.client.informers.ResourceEventHandler;
import io.fabric8.kubernetes.model.annotation.Group;
import io.fabric8.kubernetes.model.annotation.Version;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What fabric8's client does, against the cluster of KUBECONFIG: a test for each thing that programs rely on. */
class ClusterTest {

  private static final long PATIENCE_S = 30;

  private KubernetesClient client;
  private String space;

  @BeforeEach
  void alone() {
    client = new KubernetesClientBuilder().build();
    space = client.resource(new NamespaceBuilder().withNewMetadata().withGenerateName("fabric8-").endMetadata().build())
        .create().getMetadata().getName();
  }

  @AfterEach
  void left() {
    client.namespaces().withName(space).delete();
    client.close();
  }

  private ConfigMap settings(String name, String value) {
    return new ConfigMapBuilder().withNewMetadata().withName(name).withNamespace(space).endMetadata()
        .addToData("a", value).build();
  }

  private static int code(Runnable call) {
    return assertThrows(KubernetesClientException.class, call::run).getCode();
  }

  private static <T> T next(BlockingQueue<T> queue) throws InterruptedException {
    return assertNotNullAnd(queue.poll(PATIENCE_S, TimeUnit.SECONDS));
  }

  private static <T> T assertNotNullAnd(T one) {
    assertNotNull(one, "nothing came");
    return one;
  }

  @Test
  void objectsAreCreatedReadReplacedPatchedAndDeleted() {
    ConfigMap made = client.resource(settings("one", "1")).create();
    assertNotNull(made.getMetadata().getCreationTimestamp());
    assertEquals(409, code(() -> client.resource(settings("one", "1")).create()));

    ConfigMap newer = new ConfigMapBuilder(made).addToData("a", "2").build();
    client.resource(newer).update();
    assertEquals(409, code(() -> client.resource(made).lockResourceVersion().update()));

    var one = client.configMaps().inNamespace(space).withName("one");
    one.patch(PatchContext.of(PatchType.JSON_MERGE), "{\"data\": {\"b\": \"3\"}}");
    one.patch(PatchContext.of(PatchType.STRATEGIC_MERGE), "{\"metadata\": {\"labels\": {\"of\": \"it\"}}}");
    one.patch(PatchContext.of(PatchType.JSON), "[{\"op\": \"remove\", \"path\": \"/data/a\"}]");
    ConfigMap edited = one.edit(map -> new ConfigMapBuilder(map).addToData("c", "4").build());
    assertEquals(Map.of("b", "3", "c", "4"), edited.getData());
    assertEquals("it", edited.getMetadata().getLabels().get("of"));

    assertEquals(1, one.delete().size());
    assertNull(one.get());
  }

  @Test
  void whatIsInvalidIsRefusedWithItsCauses() {
    var refused = assertThrows(KubernetesClientException.class, () -> client.resource(settings("Not A Name", "1")).create());
    assertEquals(422, refused.getCode());
    assertEquals("Invalid", refused.getStatus().getReason());
    assertEquals("metadata.name", refused.getStatus().getDetails().getCauses().get(0).getField());
  }

  @Test
  void listsComeInPagesAndSelected() {
    for (int index = 0; index < 7; index++) {
      ConfigMap one = settings("page-" + index, "1");
      one.getMetadata().setLabels(Map.of("odd", String.valueOf(index % 2)));
      client.resource(one).create();
    }
    var maps = client.configMaps().inNamespace(space).withLabel("odd");
    List<String> seen = new ArrayList<>();
    String next = null;
    do {
      var page = maps.list(new ListOptionsBuilder().withLimit(3L).withContinue(next).build());
      page.getItems().forEach(one -> seen.add(one.getMetadata().getName()));
      next = page.getMetadata().getContinue();
    } while (next != null && !next.isEmpty());
    assertEquals(List.of("page-0", "page-1", "page-2", "page-3", "page-4", "page-5", "page-6"), seen);
    assertEquals(3, client.configMaps().inNamespace(space).withLabel("odd", "1").list().getItems().size());
    assertEquals(4, client.configMaps().inNamespace(space).withLabel("odd").withoutLabel("odd", "1").list().getItems().size());
    assertEquals(1, client.configMaps().inNamespace(space).withField("metadata.name", "page-4").list().getItems().size());
  }

  @Test
  void watchesOverWebSocketsTellWhatHappensInOrder() throws InterruptedException {
    BlockingQueue<String> told = new LinkedBlockingQueue<>();
    var watcher = new Watcher<ConfigMap>() {
      @Override
      public void eventReceived(Action action, ConfigMap map) {
        told.add(action + " " + map.getMetadata().getName());
      }

      @Override
      public void onClose(WatcherException cause) {
        told.add("closed: " + cause);
      }
    };
    try (var watch = client.configMaps().inNamespace(space).withName("seen").watch(watcher)) {
      client.resource(settings("seen", "1")).create();
      client.resource(settings("seen", "2")).update();
      client.resource(settings("seen", "2")).delete();
      assertEquals(List.of("ADDED seen", "MODIFIED seen", "DELETED seen"), List.of(next(told), next(told), next(told)));
    }
  }

  @Test
  void informersKeepAStore() throws InterruptedException {
    client.resource(settings("early", "1")).create();
    BlockingQueue<String> told = new LinkedBlockingQueue<>();
    var handler = new ResourceEventHandler<ConfigMap>() {
      @Override
      public void onAdd(ConfigMap one) {
        told.add("add " + one.getMetadata().getName());
      }

      @Override
      public void onUpdate(ConfigMap old, ConfigMap one) {
        told.add("update " + one.getMetadata().getName());
      }

      @Override
      public void onDelete(ConfigMap one, boolean unknown) {
        told.add("delete " + one.getMetadata().getName());
      }
    };
    try (var informer = client.configMaps().inNamespace(space).withLabel("!hidden").inform(handler)) {
      told.removeIf(one -> one.endsWith("kube-root-ca.crt"));
      client.resource(settings("late", "1")).create();
      client.resource(settings("late", "2")).update();
      client.resource(settings("late", "2")).delete();
      List<String> seen = new ArrayList<>();
      while (!seen.contains("delete late")) {
        String one = next(told);
        if (!one.endsWith("kube-root-ca.crt")) {
          seen.add(one);
        }
      }
      seen.remove("add early");
      assertEquals(List.of("add late", "update late", "delete late"), seen);
      assertTrue(informer.getStore().list().stream().anyMatch(one -> one.getMetadata().getName().equals("early")));
    }
  }

  @Test
  void waitingForAConditionEndsWhenItHolds() {
    var pods = client.pods().inNamespace(space);
    pods.resource(new PodBuilder().withNewMetadata().withName("one").endMetadata().withNewSpec()
        .withAutomountServiceAccountToken(false).withTerminationGracePeriodSeconds(0L)
        .addNewContainer().withName("c").withImage("i").endContainer().endSpec().build()).create();
    Pod ready = pods.withName("one").waitUntilReady(PATIENCE_S, TimeUnit.SECONDS);
    assertEquals("Running", ready.getStatus().getPhase());
    assertTrue(pods.withName("one").evict());
    assertNull(pods.withName("one").waitUntilCondition(java.util.Objects::isNull, PATIENCE_S, TimeUnit.SECONDS));
  }

  @Test
  void deploymentsScaleAndServicesGetAddresses() {
    var labels = Map.of("app", "web");
    Deployment web = new DeploymentBuilder().withNewMetadata().withName("web").withNamespace(space).endMetadata()
        .withNewSpec().withReplicas(1).withNewSelector().withMatchLabels(labels).endSelector()
        .withNewTemplate().withNewMetadata().withLabels(labels).endMetadata()
        .withNewSpec().addNewContainer().withName("c").withImage("i").endContainer().endSpec().endTemplate().endSpec()
        .build();
    Deployment made = client.resource(web).create();
    assertEquals("RollingUpdate", made.getSpec().getStrategy().getType());
    var scale = client.apps().deployments().inNamespace(space).withName("web").scale();
    assertEquals(1, scale.getSpec().getReplicas());
    scale.getSpec().setReplicas(3);
    client.apps().deployments().inNamespace(space).withName("web").scale(scale);
    assertEquals(3, client.apps().deployments().inNamespace(space).withName("web").get().getSpec().getReplicas());

    var service = client.resource(new ServiceBuilder().withNewMetadata().withName("web").withNamespace(space).endMetadata()
        .withNewSpec().withSelector(labels).addNewPort().withPort(80).endPort().endSpec().build()).create();
    assertNotEquals("", service.getSpec().getClusterIP());
  }

  @Group("example.com")
  @Version("v1")
  public static class Salute extends CustomResource<SaluteSpec, SaluteStatus> implements Namespaced {
  }

  public static class SaluteSpec {
    public String whom;
    public int times = 1;
  }

  public static class SaluteStatus {
    public int said;
  }

  private static CustomResourceValidation schema() {
    var spec = new JSONSchemaPropsBuilder().withType("object")
        .addToProperties("whom", new JSONSchemaPropsBuilder().withType("string").build())
        .addToProperties("times", new JSONSchemaPropsBuilder().withType("integer").withMinimum(1.0).build()).build();
    var status = new JSONSchemaPropsBuilder().withType("object")
        .addToProperties("said", new JSONSchemaPropsBuilder().withType("integer").build()).build();
    return new CustomResourceValidationBuilder().withNewOpenAPIV3Schema().withType("object")
        .addToProperties("spec", spec).addToProperties("status", status).endOpenAPIV3Schema().build();
  }

  @Test
  void aDefinitionOfAClassIsServedWithItsSchemaAndStatus() {
    CustomResourceDefinition crd = CustomResourceDefinitionContext.v1CRDFromCustomResourceType(Salute.class)
        .editSpec().editFirstVersion().withSchema(schema())
        .withNewSubresources().withNewStatus().endStatus().endSubresources().endVersion().endSpec().build();
    client.resource(crd).create();
    client.resource(crd).waitUntilCondition(one -> one != null && one.getStatus() != null
        && one.getStatus().getConditions().stream()
        .anyMatch(each -> each.getType().equals("Established") && each.getStatus().equals("True")), PATIENCE_S, TimeUnit.SECONDS);
    Salute salute = new Salute();
    salute.getMetadata().setName("hello");
    salute.getMetadata().setNamespace(space);
    salute.setSpec(new SaluteSpec());
    salute.getSpec().whom = "world";
    Salute made = client.resource(salute).create();
    made.setStatus(new SaluteStatus());
    made.getStatus().said = 2;
    made.getSpec().times = 9;
    Salute now = client.resource(made).updateStatus();
    assertEquals(List.of(1, 2), List.of(now.getSpec().times, now.getStatus().said));

    salute.getMetadata().setName("never");
    salute.getSpec().times = 0;
    assertEquals(422, code(() -> client.resource(salute).create()));

    GenericKubernetesResource untyped = client.genericKubernetesResources("example.com/v1", "Salute")
        .inNamespace(space).withName("hello").get();
    assertEquals("world", untyped.<String>get("spec", "whom"));
  }

  @Test
  void manifestsOfSeveralKindsAreMadeAndDeleted() {
    String manifest = """
        apiVersion: v1
        kind: List
        items:
        - {apiVersion: v1, kind: ServiceAccount, metadata: {name: robot}}
        - {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: reads},
           rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}
        - {apiVersion: batch/v1, kind: CronJob, metadata: {name: often}, spec: {schedule: "* * * * *", jobTemplate:
           {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}}
        """;
    var items = client.load(new java.io.ByteArrayInputStream(manifest.getBytes())).inNamespace(space);
    List<HasMetadata> made = items.create();
    assertEquals(3, made.size());
    made.forEach(one -> assertNotNull(one.getMetadata().getUid()));
    assertEquals(3, items.delete().size());
    assertNull(client.batch().v1().cronjobs().inNamespace(space).withName("often").get());
  }

  @Test
  void discoveryNamesGroupsAndKinds() {
    assertEquals("1", client.getKubernetesVersion().getMajor());
    assertTrue(client.hasApiGroup("apps", true));
    assertTrue(client.supports(Deployment.class));
    assertTrue(client.getApiResources("apps/v1").getResources().stream().anyMatch(one -> one.getName().equals("deployments/scale")));
  }

  @Test
  void oneOfTheElectedLeads() throws Exception {
    CompletableFuture<String> leads = new CompletableFuture<>();
    var config = new LeaderElectionConfigBuilder().withName("election").withReleaseOnCancel()
        .withLock(new LeaseLock(space, "election", "me"))
        .withLeaseDuration(Duration.ofSeconds(15)).withRenewDeadline(Duration.ofSeconds(10)).withRetryPeriod(Duration.ofMillis(200))
        .withLeaderCallbacks(new LeaderCallbacks(() -> { }, () -> { }, leads::complete)).build();
    var running = client.leaderElector().withConfig(config).build().start();
    assertEquals("me", leads.get(PATIENCE_S, TimeUnit.SECONDS));
    assertEquals("me", client.leases().inNamespace(space).withName("election").get().getSpec().getHolderIdentity());
    running.cancel(true);
  }

  @Test
  void whatIsAppliedBelongsToWhomAppliedIt() {
    client.resource(settings("applied", "1")).fieldManager("one").serverSideApply();
    assertEquals(409, code(() -> client.resource(settings("applied", "2")).fieldManager("two").serverSideApply()));
    ConfigMap forced = client.resource(settings("applied", "2")).fieldManager("two").forceConflicts().serverSideApply();
    assertEquals(1, forced.getMetadata().getManagedFields().size());
  }
}
