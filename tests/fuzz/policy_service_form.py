"""Form of Services and EndpointSlices, for the policy model: only what a mesh reads."""

from __future__ import annotations

from typing import Any

from tests.fuzz import policy_form as form
from tests.fuzz.policy_form import anything, listing, open_mapping, text


def no_address(value: Any) -> str:
    return "" if value == "" else f"{value!r} is something"


def _headless(value: Any) -> str:
    return "" if value == "None" else f"{value!r} is something else"


def _protocol(value: Any) -> str:
    return "" if value in ("", "TCP", "UDP", "SCTP") else f"{value!r} is no protocol"


service_spec = open_mapping(
    {
        "type": text,
        "clusterIP": form.any_of(no_address, _headless, form.address),
        "externalIPs": listing(form.address, least=0),
        "sessionAffinity": text,
        "selector": form.texts_by_name,
        "ports": listing(
            open_mapping(
                {
                    "name": text,
                    "port": form.number,
                    "targetPort": form.any_of(form.number, form.word),
                },
                ("port",),
            ),
            least=0,
        ),
    }
)
_ingress = open_mapping({"ip": form.any_of(no_address, form.address)})
service_status = open_mapping(
    {"loadBalancer": open_mapping({"ingress": listing(_ingress, least=0)})}
)

_endpoint = open_mapping(
    {
        "addresses": listing(form.address, least=0),
        "conditions": open_mapping(dict.fromkeys(("ready", "serving", "terminating"), form.flag)),
        "hints": open_mapping({}),
        "nodeName": text,
        "zone": text,
        "targetRef": open_mapping(dict.fromkeys(("kind", "namespace", "name"), text)),
    }
)
slice_parts = {
    "endpoints": listing(_endpoint, least=0),
    "ports": listing(
        open_mapping({"name": text, "port": form.number, "protocol": _protocol}), least=0
    ),
    "addressType": anything,
}
