"""Conformance: policy and access."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kubernetes import client

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import (
    HOLD,
    Kube,
    Manifest,
    Space,
    conformance,
    container,
    pod,
    readiness,
    service,
    taken,
    workload,
)

pytestmark = pytest.mark.long


@conformance("Policy", "a ResourceQuota refuses what exceeds it, a LimitRange sets default limits")
def test_quota_and_limits(kube: Kube, space: Space) -> None:
    space.create(
        {"kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"configmaps": "2"}}},
        {
            "kind": "LimitRange",
            "metadata": {"name": "small"},
            "spec": {"limits": [{"type": "Container", "default": {"memory": "48Mi"}, "max": {"memory": "64Mi"}}]},
        },
    )

    def limits() -> Any:
        made = kube.core.create_namespaced_pod(space.name, pod("main"), dry_run="All")
        return made.spec.containers[0].resources.limits

    eventually(lambda: limits() == {"memory": "48Mi"}, what="its limit is the default")
    big = space.refused(pod("big", container(resources={"limits": {"memory": "65Mi"}})))
    assert big.status == 403
    assert "maximum memory usage" in str(big.body)
    eventually(lambda: kube.core.read_namespaced_resource_quota("few", space.name).status.used)
    said = client.ApiException()
    for number in range(3):  # Kubernetes creates one in every namespace
        try:
            space.create({"kind": "ConfigMap", "metadata": {"name": f"map-{number}"}})
        except client.ApiException as error:
            said = error
    assert said.status == 403
    assert "exceeded quota" in str(said.body)


@conformance("Policy", "a PodDisruptionBudget blocks an eviction until there are enough pods")
def test_disruption_budget(kube: Kube, space: Space) -> None:
    space.create(
        workload("Deployment", "web", pod("web"), replicas=1),
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "web"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        },
    )
    (first,) = space.several(1, "app=web")

    def evict() -> int:
        name = first.metadata.name
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": space.name}}
        try:
            kube.core.create_namespaced_pod_eviction(name, space.name, body)
        except client.ApiException as error:
            return int(error.status)
        return 201

    assert evict() == 429
    space.kubectl("scale", "deployment/web", "--replicas=2")
    space.several(2, "app=web")
    eventually(lambda: evict() == 201, what="with one pod more, one may be evicted")


@conformance("Access", "RBAC: a pod's service account may do what its Role grants in its namespace, and nothing else")
def test_service_account(space: Space) -> None:
    rbac = "rbac.authorization.k8s.io"
    space.apply(
        {"kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {"kind": "ConfigMap", "metadata": {"name": "settings"}},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "Role",
            "metadata": {"name": "reads"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "reads"},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reads"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader"}],
        },
    )

    def may(*what: str) -> str:
        account = f"system:serviceaccount:{space.name}:reader"
        return space.kubectl("auth", "can-i", *what, "--as", account, ok=False).out.strip()

    # The agent's kubectl, which finds the pod's service account by itself.
    main = container(HOLD, volumeMounts=[{"name": "kubectl", "mountPath": "/bin/kubectl", "readOnly": True}])
    programs = [{"name": "kubectl", "hostPath": {"path": "/usr/local/bin/kubectl", "type": "File"}}]
    eventually(lambda: taken(space, pod("main", main, volumes=programs, serviceAccountName="reader")))
    eventually(lambda: may("list", "configmaps") == "yes")
    assert may("list", "secrets") == "no"
    assert may("delete", "configmaps") == "no"
    space.ready("main")
    assert "configmap/settings" in space.run("main", "kubectl get configmaps -o name")
    for what in ("get secrets", "delete configmap settings", "get configmaps -n default", "get nodes"):
        said = space.run("main", f"kubectl {what} 2>&1", ok=False)
        assert "Forbidden" in said
        assert f"system:serviceaccount:{space.name}:reader" in said
    unverified = space.run("main", "wget -q -O - http://kubernetes.default:443/ 2>&1", ok=False)
    assert "400" in unverified


@conformance("Access", "impersonation of a user and of groups that are bound to a role")
def test_impersonation(space: Space) -> None:
    jane = ("get", "configmaps", "-o", "name", "--as=jane")
    said = space.kubectl(*jane, ok=False)
    assert said.code != 0
    assert 'User "jane" cannot list' in said.err
    space.kubectl("create", "role", "reads", "--verb=get,list", "--resource=configmaps")
    space.kubectl("create", "rolebinding", "reads", "--role=reads", "--group=readers")
    eventually(lambda: space.kubectl(*jane, "--as-group=readers", ok=False).code == 0)
    assert space.kubectl(*jane, ok=False).code != 0


def as_user(kube: Kube, name: str, certificate: str, key: str) -> client.CoreV1Api:
    """A client that authenticates with this certificate."""
    own = client.Configuration()
    own.host, own.ssl_ca_cert = kube.api.configuration.host, kube.api.configuration.ssl_ca_cert
    for attribute, text in (("cert_file", certificate), ("key_file", key)):
        path = kube.folder / f"{name}.{attribute}"
        path.write_text(text)
        setattr(own, attribute, str(path))
    return client.CoreV1Api(client.ApiClient(own))


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


@conformance("Access", "an approved certificate signing request yields a certificate that authenticates")
def test_certificates(kube: Kube) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "t-jane")])
    wanted = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    encoded = base64.b64encode(wanted.public_bytes(serialization.Encoding.PEM)).decode()
    kube.create(
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": "t-jane"},
            "spec": {
                "request": encoded,
                "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"],
            },
        }
    )
    try:
        kube.kubectl("certificate", "approve", "t-jane")
        certificates = client.CertificatesV1Api(kube.api)
        issued = eventually(
            lambda: certificates.read_certificate_signing_request("t-jane").status.certificate,
            what="the certificate is issued",
        )
        jane = as_user(kube, "jane", base64.b64decode(issued).decode(), pem(key).decode())
        with pytest.raises(client.ApiException) as refused:
            jane.list_namespaced_pod("default")
        assert refused.value.status == 403
        assert 'User \\"t-jane\\"' in str(refused.value.body)
    finally:
        kube.kubectl("delete", "certificatesigningrequest", "t-jane")


@conformance(
    "Access",
    "an agent may change its own node but no other (NodeRestriction), nor read Secrets of pods that it does not run",
)
def test_node_restriction(kube: Kube, space: Space) -> None:
    own = [
        kube.shell.minicluster(
            "exec", "-c", kube.cluster, "agent-1", "--", "cat", f"/etc/kubernetes/pki/kubelet/{name}.pem"
        ).out
        for name in ("cert", "key")
    ]
    agent = as_user(kube, "agent", *own)
    note = {"metadata": {"annotations": {"t-note": "1"}}}
    agent.patch_node("agent-1", note)
    space.create({"kind": "Secret", "metadata": {"name": "hidden"}})
    for refused in (
        lambda: agent.patch_node("agent-2", note),
        lambda: agent.delete_node("agent-2"),
        lambda: agent.patch_node("agent-1", {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "1"}}}),
        lambda: agent.read_namespaced_secret("hidden", space.name),
    ):
        with pytest.raises(client.ApiException) as error:
            refused()
        assert error.value.status == 403


#: HAProxy, which every node has, as an admission webhook: it refuses objects that are labelled bad.
WEBHOOK = """
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend admission
  bind :443 ssl crt /files/both.pem
  option http-buffer-request
  http-request set-var(txn.uid) req.body,json_query('$.request.uid')
  http-request set-var(txn.kind) req.body,json_query('$.request.object.metadata.labels.kind')
  acl bad var(txn.kind) -m str bad
  http-request return status 200 content-type application/json lf-file /files/refuses if bad
  http-request return status 200 content-type application/json lf-file /files/allows
"""


def review(rest: str) -> str:
    head = '{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "%[var(txn.uid)]", '
    return head + rest + "}}"


@conformance("Access", "a validating webhook served by a pod refuses objects")
def test_webhook(kube: Kube, space: Space) -> None:
    host = f"hook.{space.name}.svc"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    # The programs and libraries of the agent.
    folders = {"usr": "/usr", "lib": "/usr/lib", "lib64": "/usr/lib64"}
    refuses = review('"allowed": false, "status": {"code": 422, "message": "bad is not good"}')
    files = {
        "haproxy.cfg": WEBHOOK,
        "both.pem": (certificate + pem(key)).decode(),
        "allows": review('"allowed": true'),
        "refuses": refuses,
    }
    main = container("exec /usr/sbin/haproxy -db -f /files/haproxy.cfg", **readiness(tcpSocket={"port": 443}))
    main["volumeMounts"] = [{"name": "files", "mountPath": "/files"}]
    main["volumeMounts"] += [{"name": name, "mountPath": f"/{name}", "readOnly": True} for name in folders]
    volumes: list[Manifest] = [{"name": "files", "secret": {"secretName": "files"}}]
    volumes += [{"name": name, "hostPath": {"path": path}} for name, path in folders.items()]
    made = service("hook", 443)
    made["spec"]["ports"][0]["targetPort"] = 443
    space.create(
        {"kind": "Secret", "metadata": {"name": "files"}, "stringData": files}, pod("hook", main, volumes=volumes), made
    )
    space.ready("hook")
    eventually(lambda: space.endpoints("hook"))
    hook = {
        "name": "kinds.t.example.org",
        "clientConfig": {
            "service": {"name": "hook", "namespace": space.name, "path": "/"},
            "caBundle": base64.b64encode(certificate).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchLabels": {"t-hooked": "yes"}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 5,
    }
    kube.kubectl("label", "namespace", space.name, "t-hooked=yes")
    kube.create(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "t-hook"},
            "webhooks": [hook],
        }
    )
    try:
        good, bad = (
            {"kind": "ConfigMap", "metadata": {"generateName": "map-", "labels": {"kind": k}}} for k in ("good", "bad")
        )

        def refusal() -> str:
            try:
                space.create(bad)
            except client.ApiException as error:
                return str(error.body)
            return ""

        said = eventually(refusal, what="the webhook is asked")
        assert "bad is not good" in said
        space.create(good)
    finally:
        kube.kubectl("delete", "validatingwebhookconfiguration", "t-hook")
