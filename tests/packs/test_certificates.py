from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from tests.packs.conftest import Cluster, causes

_REQUESTS = "certificates.k8s.io/certificatesigningrequests"
_BUNDLES = "certificates.k8s.io/clustertrustbundles"
_APPROVED: Object = {"type": "Approved", "status": "True", "reason": "r", "message": "m"}


def _request(organization: str = "people") -> str:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


def _spec(**changes: object) -> Object:
    return {"request": _request(), "signerName": "example.com/x", "usages": ["client auth"], **changes}


async def test_who_asks_for_a_certificate_is_told_by_the_server(cluster: Cluster) -> None:
    made = await cluster.create(_REQUESTS, "a", spec=_spec(username="root", expirationSeconds=3600))
    assert made["spec"]["username"] == "tester"
    assert made["status"] == {}
    assert cluster.row(_REQUESTS, made) == ["a", "0s", "example.com/x", "tester", "60m", "Pending"]


async def test_a_request_is_signed_for_known_usages_by_a_named_signer(cluster: Cluster) -> None:
    bad = _spec(request="YQ==", signerName="foo", usages=["x", "x"], expirationSeconds=1)
    error = await cluster.refused(_REQUESTS, "a", spec=bad)
    assert [field for field, _ in causes(error)] == [
        "spec.request",
        "spec.usages[0]",
        "spec.usages[1]",
        "spec.usages[1]",
        "spec.signerName",
        "spec.expirationSeconds",
    ]


async def test_nobody_becomes_master_by_a_certificate(cluster: Cluster) -> None:
    spec = _spec(request=_request("system:masters"), signerName="kubernetes.io/kube-apiserver-client")
    error = await cluster.refused(_REQUESTS, "a", spec=spec)
    assert error.reason == "Forbidden"


async def test_approval_is_given_once_and_apart_from_the_certificate(cluster: Cluster) -> None:
    await cluster.create(_REQUESTS, "a", spec=_spec())
    status: Object = {"conditions": [dict(_APPROVED)], "certificate": "YQ=="}
    approved = await cluster.update(_REQUESTS, "a", "approval", spec={}, status=status)
    assert "certificate" not in approved["status"]
    assert approved["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert cluster.row(_REQUESTS, approved)[-1] == "Approved"
    with pytest.raises(ApiError) as caught:
        await cluster.update(_REQUESTS, "a", "approval", spec={}, status={})
    assert causes(caught.value) == [
        ("status.conditions", 'Forbidden: updates may not remove a condition of type "Approved"')
    ]
    with pytest.raises(ApiError) as caught:
        await cluster.update(_REQUESTS, "a", "status", spec={}, status={"certificate": "YQ=="})
    assert "status.certificate" in [field for field, _ in causes(caught.value)]


async def test_a_bundle_of_a_signer_is_named_after_it(cluster: Cluster) -> None:
    error = await cluster.refused(_BUNDLES, "a", spec={"trustBundle": "", "signerName": "e.com/x"})
    assert causes(error)[0] == (
        "metadata.name",
        'Invalid value: "a": ClusterTrustBundle for signerName e.com/x must be named with prefix e.com:x:',
    )
    assert causes(error)[1][0] == "spec.trustBundle"


def _stub() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode()


async def test_a_pods_request_has_a_proof_and_names_whom_it_is_for(cluster: Cluster) -> None:
    plural = "certificates.k8s.io/podcertificaterequests"
    spec: Object = {"signerName": "e.com/x", "stubPKCS10Request": _stub()}
    for whom in ("pod", "serviceAccount", "node"):
        spec |= {f"{whom}Name": "a", f"{whom}UID": "u"}
    made = await cluster.create(plural, "a", spec=dict(spec))
    assert made["spec"]["maxExpirationSeconds"] == 86400
    assert cluster.row(plural, made)[1:] == ["a", "a", "a", "e.com/x", "Pending", "<none>"]
    error = await cluster.refused(plural, "b", spec={**spec, "stubPKCS10Request": "YQ=="})
    assert causes(error) == [("spec.stubPKCS10Request", "Invalid value: must be a valid PKCS#10 CSR")]
    error = await cluster.refused(plural, "b", spec={**spec, "stubPKCS10Request": "", "podUID": ""})
    assert [field for field, _ in causes(error)] == ["spec.podUID", "spec"]
