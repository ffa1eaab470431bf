package plimsoll;

import io.kubernetes.client.Exec;
import io.kubernetes.client.PodLogs;
import io.kubernetes.client.custom.V1Patch;
import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.openapi.ApiException;
import io.kubernetes.client.openapi.Configuration;
import io.kubernetes.client.openapi.apis.CoreV1Api;
import io.kubernetes.client.openapi.models.V1ConfigMap;
import io.kubernetes.client.openapi.models.V1Container;
import io.kubernetes.client.openapi.models.V1ObjectMeta;
import io.kubernetes.client.openapi.models.V1Pod;
import io.kubernetes.client.openapi.models.V1PodSpec;
import io.kubernetes.client.util.Config;
import io.kubernetes.client.util.PatchUtils;
import io.kubernetes.client.util.Watch;
import com.google.gson.reflect.TypeToken;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.TimeUnit;

/** The round of a client library, with Java's. Namespace and image are its arguments; each step is told in a line. */
public final class Round {
  interface Work {
    void run() throws Exception;
  }

  static void step(String what, Work work) {
    try {
      work.run();
      System.out.println("ok " + what);
    } catch (ApiException error) {
      System.out.println("failed " + what + ": " + error.getCode() + " " + String.valueOf(error.getResponseBody()).replaceAll("\\s+", " "));
    } catch (Exception error) {
      System.out.println("failed " + what + ": " + String.valueOf(error).replaceAll("\\s+", " "));
    }
  }

  static void expect(Object found, Object wanted) {
    if (!Objects.equals(found, wanted)) {
      throw new IllegalStateException(found + " and not " + wanted);
    }
  }

  public static void main(String[] args) throws Exception {
    String namespace = args[0];
    String image = args[1];
    ApiClient client = Config.defaultClient();
    client.setReadTimeout(0);
    Configuration.setDefaultApiClient(client);
    CoreV1Api core = new CoreV1Api(client);

    String version = core.listNamespacedConfigMap(namespace).execute().getMetadata().getResourceVersion();
    List<String> seen = new ArrayList<>();
    Thread follower = new Thread(() -> follow(client, core, namespace, version, seen));
    follower.start();

    V1ConfigMap map = new V1ConfigMap().metadata(new V1ObjectMeta().name("round").labels(Map.of("round", "java"))).data(Map.of("a", "1"));
    step("create", () -> expect(core.createNamespacedConfigMap(namespace, map).execute().getData(), Map.of("a", "1")));
    step("get", () -> expect(core.readNamespacedConfigMap("round", namespace).execute().getData(), Map.of("a", "1")));
    step("list by label", () -> expect(core.listNamespacedConfigMap(namespace).labelSelector("round=java").execute().getItems().size(), 1));
    step("patch", () -> {
      V1Patch patch = new V1Patch("{\"data\":{\"a\":\"2\"}}");
      V1ConfigMap patched = PatchUtils.patch(V1ConfigMap.class,
          () -> core.patchNamespacedConfigMap("round", namespace, patch).buildCall(null),
          V1Patch.PATCH_FORMAT_STRATEGIC_MERGE_PATCH, client);
      expect(patched.getData(), Map.of("a", "2"));
    });
    step("update, and a conflict for an old version", () -> {
      V1ConfigMap found = core.readNamespacedConfigMap("round", namespace).execute();
      core.replaceNamespacedConfigMap("round", namespace, found.data(Map.of("a", "3"))).execute();
      try {
        core.replaceNamespacedConfigMap("round", namespace, found).execute();
      } catch (ApiException error) {
        expect(error.getCode(), 409);
        return;
      }
      throw new IllegalStateException("an old version was taken");
    });
    step("delete", () -> core.deleteNamespacedConfigMap("round", namespace).execute());
    follower.join();
    step("watch", () -> expect(seen, List.of("ADDED 1", "MODIFIED 2", "MODIFIED 3", "DELETED 3")));

    step("a pod gets ready", () -> pod(client, core, namespace, image));
    step("logs, followed", () -> {
      var stream = new PodLogs(client).streamNamespacedPodLog(namespace, "java", "main", null, 100, false);
      var lines = new BufferedReader(new InputStreamReader(stream, StandardCharsets.UTF_8));
      String said = lines.readLine();
      while (said != null && !said.contains("Started HTTP server")) {
        said = lines.readLine();
      }
      if (said == null) {
        throw new IllegalStateException("the log has ended");
      }
    });
    step("exec", () -> {
      Process process = new Exec(client).exec(namespace, "java", new String[] {"hostname"}, false);
      String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      if (!process.waitFor(30, TimeUnit.SECONDS)) {
        throw new IllegalStateException("it has not ended after 30 s");
      }
      expect(said.trim(), "java");
      expect(process.exitValue(), 0);
    });
    step("delete a pod", () -> core.deleteNamespacedPod("java", namespace).execute());
    System.exit(0);
  }

  static void follow(ApiClient client, CoreV1Api core, String namespace, String version, List<String> seen) {
    try (Watch<V1ConfigMap> watch = Watch.createWatch(client,
        core.listNamespacedConfigMap(namespace).labelSelector("round=java").resourceVersion(version).watch(true).timeoutSeconds(30).buildCall(null),
        new TypeToken<Watch.Response<V1ConfigMap>>() {}.getType())) {
      for (Watch.Response<V1ConfigMap> event : watch) {
        seen.add(event.type + " " + event.object.getData().get("a"));
        if (event.type.equals("DELETED")) {
          return;
        }
      }
    } catch (Exception error) {
      seen.add(String.valueOf(error));
    }
  }

  static void pod(ApiClient client, CoreV1Api core, String namespace, String image) throws Exception {
    V1PodSpec spec = new V1PodSpec().terminationGracePeriodSeconds(1L).addContainersItem(new V1Container().name("main").image(image).addArgsItem("netexec"));
    core.createNamespacedPod(namespace, new V1Pod().metadata(new V1ObjectMeta().name("java")).spec(spec)).execute();
    try (Watch<V1Pod> watch = Watch.createWatch(client,
        core.listNamespacedPod(namespace).fieldSelector("metadata.name=java").watch(true).timeoutSeconds(60).buildCall(null),
        new TypeToken<Watch.Response<V1Pod>>() {}.getType())) {
      for (Watch.Response<V1Pod> event : watch) {
        var conditions = event.object.getStatus().getConditions();
        if (conditions != null && conditions.stream().anyMatch(c -> c.getType().equals("Ready") && c.getStatus().equals("True"))) {
          return;
        }
      }
    }
    throw new IllegalStateException("the pod is not ready after 60 s");
  }
}
