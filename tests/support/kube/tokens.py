"""Service account tokens: TokenRequest makes them, TokenReview judges them, as recorded."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.support.kube.kinds import Resource
from tests.support.kube.status import Json, invalid, refusal
from tests.support.kube.store import Store

ISSUER = "https://kubernetes.default.svc"
LIFE_S_MIN = 600
GROUP = "authentication.k8s.io"


def _part(value: Json | bytes) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(slots=True)
class Tokens:
    """Every token that was made, with its claims."""

    store: Store
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    reviews: list[str] = field(default_factory=list)  # the tokens that were asked about

    def request(self, namespace: str, account: str, asked: Json) -> Json:
        """Answer to a TokenRequest. Raises ApiRefusal."""
        spec = asked["spec"]
        life_s = spec.get("expirationSeconds", 3600)
        if life_s < LIFE_S_MIN:
            said = f"Invalid value: {life_s}: may not specify a duration less than 10 minutes"
            where, why = "spec.expirationSeconds", "FieldValueInvalid"
            raise invalid(GROUP, "TokenRequest", "", where, said, why)
        owner = self.store.get(self._core("serviceaccounts"), namespace, account)
        claims = self._claims(namespace, owner, spec, life_s)
        signed = f"{_part({'alg': 'ES256', 'kid': 'bed'})}.{_part(claims)}"
        pair = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        token = f"{signed}.{_part(b''.join(each.to_bytes(32) for each in pair))}"
        self.made[token] = claims
        ends = self.store.now() + timedelta(seconds=life_s)
        return {
            "kind": "TokenRequest",
            "apiVersion": f"{GROUP}/v1",
            "metadata": {
                "name": account,
                "namespace": namespace,
                "uid": owner["metadata"]["uid"],
                "creationTimestamp": self.store.stamp(),
            },
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ")},
        }

    def published(self) -> Json:
        """The public key, as `/openid/v1/jwks` has it."""
        numbers = self.key.public_key().public_numbers()
        place = {name: _part(getattr(numbers, name).to_bytes(32)) for name in ("x", "y")}
        row = {"use": "sig", "kty": "EC", "kid": "bed", "crv": "P-256", "alg": "ES256", **place}
        return {"keys": [row]}

    def _core(self, plural: str) -> Resource:
        found = self.store.resource("", "v1", plural)
        assert found is not None
        return found

    def _claims(self, namespace: str, owner: Json, spec: Json, life_s: int) -> Json:
        now_s = int(self.store.now().timestamp())
        name = owner["metadata"]["name"]
        account = {"name": name, "uid": owner["metadata"]["uid"]}
        bound: Json = {"namespace": namespace, "serviceaccount": account}
        if ref := spec.get("boundObjectRef"):
            pod = self.store.get(self._core("pods"), namespace, ref["name"])
            uid = pod["metadata"]["uid"]
            if ref.get("uid", uid) != uid:
                message = (
                    f'Operation cannot be fulfilled on Pod "{ref["name"]}": the UID in the bound '
                    f"object reference ({ref['uid']}) does not match the UID in record. "
                    "The object might have been deleted and then recreated"
                )
                raise refusal(409, "Conflict", message, name=ref["name"], kind="Pod")
            bound["pod"] = {"name": ref["name"], "uid": uid}
            if node := pod.get("spec", {}).get("nodeName"):
                known = self.store.objects.get((("", "nodes"), "", node))
                node_uid = known["metadata"]["uid"] if known else str(uuid.uuid4())
                bound["node"] = {"name": node, "uid": node_uid}
        return {
            "aud": spec.get("audiences") or [ISSUER],
            "exp": now_s + life_s,
            "iat": now_s,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": bound,
            "nbf": now_s,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }

    def review(self, asked: Json) -> Json:
        """Answer to a TokenReview: always 201, whatever it says."""
        spec = asked["spec"]
        self.reviews.append(spec["token"])
        claims = self.made.get(spec["token"])
        if claims is None:
            status: Json = {"user": {}, "error": "invalid bearer token"}
        elif why := self._fault(claims, spec.get("audiences") or [ISSUER]):
            status = {"user": {}, "error": f"[invalid bearer token, {why}]"}
        else:
            status = self._accepted(claims, spec.get("audiences") or [ISSUER])
        head = {"kind": "TokenReview", "apiVersion": f"{GROUP}/v1", "metadata": {}}
        return {**head, "spec": spec, "status": status}

    def _fault(self, claims: Json, wanted: list[str]) -> str:
        if not set(claims["aud"]) & set(wanted):
            have, want = json.dumps(claims["aud"]), json.dumps(wanted)
            return f"token audiences {have} is invalid for the target audiences {want}"
        now_s = self.store.now().timestamp()
        if now_s >= claims["exp"]:
            return "service account token has expired"
        if now_s < claims["nbf"]:
            return "service account token is not valid yet"
        bound = claims["kubernetes.io"]
        objects, namespace = self.store.objects, bound["namespace"]
        for plural, claim in (("serviceaccounts", "serviceaccount"), ("pods", "pod")):
            if claim not in bound:
                continue
            found = objects.get((("", plural), namespace, bound[claim]["name"]))
            if found is None or found["metadata"]["uid"] != bound[claim]["uid"]:
                return "service account token has been invalidated"
        return ""

    def _accepted(self, claims: Json, wanted: list[str]) -> Json:
        bound = claims["kubernetes.io"]
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}
        for what in ("node", "pod"):
            if what in bound:
                for part in ("name", "uid"):
                    extra[f"authentication.kubernetes.io/{what}-{part}"] = [bound[what][part]]
        namespace = bound["namespace"]
        return {
            "authenticated": True,
            "user": {
                "username": claims["sub"],
                "uid": bound["serviceaccount"]["uid"],
                "groups": [
                    "system:serviceaccounts",
                    f"system:serviceaccounts:{namespace}",
                    "system:authenticated",
                ],
                "extra": extra,
            },
            "audiences": [each for each in claims["aud"] if each in wanted],
        }
