"""Service Quotas: what an account may have of EC2, page by page; requests are held against AWS's service model."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import botocore.session

from tests.fakes.wire import Reply, Request

TARGET = "ServiceQuotasV20190624."
STANDARD = "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"
SPOT = "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"
GPUS = "Running On-Demand G and VT instances"
ELASTIC_IPS = "EC2-VPC Elastic IPs"
_PAGE = 3


class Quotas:
    """`values` by the quotas' names, which a test may change."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {
            "Concurrent client VPN operations per endpoint": 10,
            STANDARD: 640,
            "Running On-Demand P instances": 96,
            GPUS: 64,
            SPOT: 640,
            ELASTIC_IPS: 50,
            "Running Dedicated m6a Hosts": 1,
        }

    def answer(self, request: Request) -> Reply:
        """ListServiceQuotas."""
        asked = json.loads(request.body or b"{}")
        unknown = asked.keys() - _members()
        if unknown or asked.get("ServiceCode") != "ec2":
            return refused("IllegalArgumentException", f"Invalid request: {sorted(unknown) or asked}")
        first = int(asked.get("NextToken") or 0)
        names = list(self.values)[first : first + _PAGE]
        found: dict[str, Any] = {
            "Quotas": [{"ServiceCode": "ec2", "QuotaName": name, "Value": self.values[name]} for name in names]
        }
        if first + _PAGE < len(self.values):
            found["NextToken"] = str(first + _PAGE)
        return _json(200, found)


def refused(code: str, message: str) -> Reply:
    """As the service says no."""
    return _json(400, {"__type": code, "message": message})


def call_of(request: Request) -> str:
    """The call of a request to this service; "" for another's."""
    target = request.headers.get("x-amz-target", "")
    return target.removeprefix(TARGET) if target.startswith(TARGET) else ""


@functools.cache
def _members() -> frozenset[str]:
    model = botocore.session.get_session().get_service_model("service-quotas")
    return frozenset(model.operation_model("ListServiceQuotas").input_shape.members)


def _json(status: int, body: Mapping[str, Any]) -> Reply:
    return Reply(status=status, body=json.dumps(body).encode(), headers={"Content-Type": "application/x-amz-json-1.1"})
