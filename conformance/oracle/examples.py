"""Valid objects of each kind to begin from: small ones, and larger ones that use what a shop uses. `NAME` is replaced."""

CONTAINER = {"name": "web", "image": "nginx:1.27"}
LABELS = {"app": "NAME"}
SELECTOR = {"matchLabels": LABELS}
FULL_CONTAINER = {
    "name": "web", "image": "registry.example.com/web@sha256:" + "a" * 64, "command": ["/web"], "args": ["--port=$(PORT)"],
    "workingDir": "/srv", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}],
    "envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings", "optional": True}}, {"secretRef": {"name": "keys"}}],
    "env": [{"name": "PORT", "value": "8080"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"containerName": "web", "resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "a", "optional": False}}}],
    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.25", "memory": "256Mi"}},
    "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "conf", "mountPath": "/conf", "readOnly": True, "subPath": "a"}],
    "livenessProbe": {"httpGet": {"path": "/live", "port": "http", "httpHeaders": [{"name": "X-A", "value": "b"}]}, "periodSeconds": 5},
    "readinessProbe": {"tcpSocket": {"port": 8080}, "failureThreshold": 2}, "startupProbe": {"grpc": {"port": 9000}},
    "lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}},
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "seccompProfile": {"type": "RuntimeDefault"}},
}
FULL_POD = {
    "containers": [FULL_CONTAINER, {"name": "side", "image": "busybox", "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}}}],
    "initContainers": [{"name": "init", "image": "busybox:latest"}, {"name": "proxy", "image": "p", "restartPolicy": "Always"}],
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "conf", "configMap": {"name": "settings", "items": [{"key": "a", "path": "a", "mode": 256}]}},
                {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 256}}, {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"}},
                {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "shop"}}, {"configMap": {"name": "c"}}]}},
                {"name": "host", "hostPath": {"path": "/var/log", "type": "Directory"}}],
    "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                     {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]}},
                 "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "podAffinityTerm": {
                     "topologyKey": "kubernetes.io/hostname", "labelSelector": SELECTOR}}]}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": SELECTOR}],
    "securityContext": {"fsGroup": 2000, "runAsUser": 1000, "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "1 2"}]},
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.b"]}], "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]},
    "terminationGracePeriodSeconds": 10, "imagePullSecrets": [{"name": "pull"}], "hostname": "web", "subdomain": "shop",
}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}}
FULL_TEMPLATE = {"metadata": {"labels": LABELS, "annotations": {"a": "b"}}, "spec": FULL_POD}
JOB_TEMPLATE = {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
METRIC = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}
RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
SUBJECTS = [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount", "name": "a", "namespace": "oracle"}]
WIDGET = {
    "group": "NAME.example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget", "singular": "widget", "shortNames": ["wd"]},
    "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1, "default": 3}, "color": {"type": "string", "enum": ["red", "blue"]}}}}}}}],
}
EXAMPLES = {
    "configmaps": [{}, {"data": {"a": "1", "b.txt": "x\n"}, "binaryData": {"c": "aGk="}}, {"immutable": True, "data": {"a": "1"}}],
    "secrets": [{}, {"type": "Opaque", "data": {"a": "aGk="}, "stringData": {"b": "text"}},
                {"type": "kubernetes.io/basic-auth", "stringData": {"username": "u", "password": "p"}}, {"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}},
                {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{}"}}],
    "pods": [{"spec": {"containers": [CONTAINER]}}, {"metadata": {"labels": LABELS}, "spec": FULL_POD},
             {"spec": {"containers": [CONTAINER], "hostNetwork": True, "schedulingGates": [{"name": "a"}], "restartPolicy": "Never", "activeDeadlineSeconds": 30}}],
    "podtemplates": [{"template": TEMPLATE}, {"template": FULL_TEMPLATE}],
    "replicationcontrollers": [{"spec": {"selector": LABELS, "template": TEMPLATE}}, {"spec": {"replicas": 0, "template": FULL_TEMPLATE}}],
    "services": [{"spec": {"ports": [{"port": 80}]}},
                 {"spec": {"selector": LABELS, "type": "NodePort", "ports": [{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 53, "protocol": "UDP"}],
                           "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local"}},
                 {"spec": {"clusterIP": "None", "selector": LABELS, "publishNotReadyAddresses": True}},
                 {"spec": {"type": "ExternalName", "externalName": "db.example.com"}},
                 {"spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "ports": [{"port": 443}], "externalIPs": ["192.0.2.1"]}}],
    "endpoints": [{}, {"subsets": [{"addresses": [{"ip": "10.1.2.3", "hostname": "a", "nodeName": "n"}], "ports": [{"name": "a", "port": 80}]}]}],
    "events": [{"metadata": {"namespace": "oracle"}, "involvedObject": {"namespace": "oracle", "kind": "Pod", "name": "a"}, "reason": "Started", "message": "m", "type": "Normal"},
               {"metadata": {"namespace": "oracle"}, "involvedObject": {"namespace": "oracle"}, "eventTime": "2024-01-01T00:00:00.000001Z", "reportingComponent": "x.y/z",
                "reportingInstance": "i", "action": "a", "reason": "r", "type": "Warning", "source": {"component": "c"}, "count": 2}],
    "events.k8s.io/v1 events": [{"eventTime": "2024-01-01T00:00:00.000001Z", "reportingController": "x.y/z", "reportingInstance": "i", "action": "a", "reason": "r",
                                 "type": "Normal", "note": "n", "regarding": {"kind": "Pod", "namespace": "oracle", "name": "a"}}],
    "limitranges": [{"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "max": {"memory": "1Gi"}}]}},
                    {"spec": {"limits": [{"type": "Pod", "max": {"cpu": "2"}, "min": {"cpu": "100m"}, "maxLimitRequestRatio": {"cpu": "4"}},
                                         {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}}]}}],
    "resourcequotas": [{"spec": {"hard": {"pods": "10"}}}, {"spec": {"hard": {"requests.cpu": "4", "limits.memory": "8Gi", "count/deployments.apps": "3"}, "scopes": ["NotTerminating"]}}],
    "namespaces": [{}, {"metadata": {"labels": {"team": "a"}}}],
    "nodes": [{}, {"metadata": {"labels": {"kubernetes.io/hostname": "NAME"}}, "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"], "providerID": "x://y",
                   "unschedulable": True, "taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]},
                   "status": {"capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                              "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.37.2"}}}],
    "persistentvolumeclaims": [{"spec": CLAIM}, {"spec": {**CLAIM, "storageClassName": "fast", "volumeMode": "Block", "selector": SELECTOR,
                                                          "dataSource": {"kind": "PersistentVolumeClaim", "name": "other"}}}],
    "persistentvolumes": [{"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}},
                          {"spec": {"capacity": {"storage": "1.5Gi"}, "accessModes": ["ReadWriteMany"], "nfs": {"server": "s", "path": "/p"}, "storageClassName": "slow",
                                    "persistentVolumeReclaimPolicy": "Delete", "mountOptions": ["ro"], "claimRef": {"namespace": "oracle", "name": "c"}}}],
    "serviceaccounts": [{}, {"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "p"}], "automountServiceAccountToken": False}],
    "deployments": [{"spec": {"selector": SELECTOR, "template": TEMPLATE}},
                    {"spec": {"replicas": 2, "selector": SELECTOR, "template": FULL_TEMPLATE, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}},
                              "minReadySeconds": 5, "revisionHistoryLimit": 3, "progressDeadlineSeconds": 60, "paused": True}}],
    "replicasets": [{"spec": {"selector": SELECTOR, "template": TEMPLATE}}, {"spec": {"replicas": 0, "minReadySeconds": 1, "selector": SELECTOR, "template": FULL_TEMPLATE}}],
    "daemonsets": [{"spec": {"selector": SELECTOR, "template": TEMPLATE}},
                   {"spec": {"selector": SELECTOR, "template": FULL_TEMPLATE, "updateStrategy": {"type": "OnDelete"}, "minReadySeconds": 2, "revisionHistoryLimit": 2}}],
    "statefulsets": [{"spec": {"serviceName": "s", "selector": SELECTOR, "template": TEMPLATE}},
                     {"spec": {"serviceName": "s", "replicas": 3, "selector": SELECTOR, "template": FULL_TEMPLATE, "podManagementPolicy": "Parallel", "ordinals": {"start": 1},
                               "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": CLAIM}],
                               "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}}}],
    "controllerrevisions": [{"revision": 1, "data": {"a": 1}}],
    "jobs": [{"spec": {"template": JOB_TEMPLATE}},
             {"spec": {"parallelism": 2, "completions": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 1, "maxFailedIndexes": 2, "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 5,
                       "suspend": True, "template": JOB_TEMPLATE, "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}}}],
    "cronjobs": [{"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": JOB_TEMPLATE}}}},
                 {"spec": {"schedule": "@daily", "timeZone": "Europe/Berlin", "concurrencyPolicy": "Forbid", "suspend": True, "startingDeadlineSeconds": 30, "successfulJobsHistoryLimit": 1,
                           "failedJobsHistoryLimit": 0, "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"backoffLimit": 2, "template": JOB_TEMPLATE}}}}],
    "horizontalpodautoscalers": [{"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 3}},
                                 {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 2, "maxReplicas": 9, "metrics": [METRIC],
                                           "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60, "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}}}}],
    "autoscaling/v1 horizontalpodautoscalers": [{"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3, "targetCPUUtilizationPercentage": 70}}],
    "ingresses": [{"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}},
                  {"spec": {"ingressClassName": "nginx", "tls": [{"hosts": ["a.example.com"], "secretName": "tls"}],
                            "rules": [{"host": "*.example.com", "http": {"paths": [{"path": "/x", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "http"}}}},
                                                                                  {"pathType": "ImplementationSpecific", "backend": {"resource": {"kind": "X", "name": "y"}}}]}}]}}],
    "ingressclasses": [{"spec": {"controller": "example.com/c"}}, {"spec": {"controller": "example.com/c", "parameters": {"kind": "X", "name": "y", "scope": "Namespace", "namespace": "n"}}}],
    "networkpolicies": [{"spec": {"podSelector": {}}}, {"spec": {"podSelector": SELECTOR, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]}], "egress": [{"ports": [{"port": "dns", "protocol": "UDP"}]}]}}],
    "poddisruptionbudgets": [{"spec": {"minAvailable": 1, "selector": SELECTOR}}, {"spec": {"maxUnavailable": "20%", "selector": {}, "unhealthyPodEvictionPolicy": "AlwaysAllow"}}],
    "roles": [{"rules": [RULE]}, {"rules": []}, {"rules": [{"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["*"], "resourceNames": ["web"]}]}],
    "clusterroles": [{"rules": [RULE]}, {"aggregationRule": {"clusterRoleSelectors": [SELECTOR]}, "rules": []}, {"rules": [{"nonResourceURLs": ["/healthz*"], "verbs": ["get"]}]}],
    "rolebindings": [{"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": SUBJECTS}],
    "clusterrolebindings": [{"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": SUBJECTS}],
    "priorityclasses": [{"value": 1000}, {"value": -5, "preemptionPolicy": "Never", "description": "d"}],
    "leases": [{}, {"spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "acquireTime": "2024-01-01T00:00:00.000000Z", "renewTime": "2024-01-01T00:00:00.000001Z", "leaseTransitions": 1}}],
    "endpointslices": [{"addressType": "IPv4", "endpoints": [], "ports": []},
                       {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": True}, "nodeName": "n", "targetRef": {"kind": "Pod", "name": "a"}}],
                        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http"}]}],
    "customresourcedefinitions": [{"spec": WIDGET}],
    "storageclasses": [{"provisioner": "example.com/p"}, {"provisioner": "example.com/p", "parameters": {"a": "b"}, "reclaimPolicy": "Retain", "allowVolumeExpansion": True,
                        "volumeBindingMode": "WaitForFirstConsumer", "mountOptions": ["ro"], "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]}],
}
# Kinds whose objects change what happens to others in their namespace.
APART = {"limitranges": "oracle-limits", "resourcequotas": "oracle-limits"}


def examples(resource):
    """Bodies without name and kind."""
    return EXAMPLES.get(f"{resource.version} {resource.plural}") or EXAMPLES.get(resource.plural, [])


def named(value, name):
    """A copy in which NAME is replaced."""
    if isinstance(value, dict):
        return {k: named(v, name) for k, v in value.items()}
    if isinstance(value, list):
        return [named(v, name) for v in value]
    return value.replace("NAME", name) if isinstance(value, str) else value


def complete(resource, example, name):
    """An object of the kind with this name."""
    body = named(example, name)
    whole = f"widgets.{name}.example.com" if resource.plural == "customresourcedefinitions" else name
    return {"apiVersion": resource.version, "kind": resource.kind, **body, "metadata": {"name": whole, **body.get("metadata", {})}}
