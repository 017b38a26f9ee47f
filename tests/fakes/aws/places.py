"""Where an instance may be put, which moto does not know: placement groups, hosts, reservations, capacity blocks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fakes.aws.model import Refused

_MOTO_LACKS = ("Placement.", "CapacityReservationSpecification.", "IamInstanceProfile.")
_RESERVATION = "CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId"


@dataclass
class Places:
    """What the account has, by name or id; `reservations` say whether they are capacity blocks."""

    groups: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    host_groups: set[str] = field(default_factory=set)
    reservations: dict[str, bool] = field(default_factory=dict)
    profiles: set[str] = field(default_factory=set)

    def refuse(self, form: Mapping[str, str]) -> None:
        """Raise `Refused` for a place that EC2 would refuse."""
        market = form.get("InstanceMarketOptions.MarketType", "")
        for key, known, code in (
            ("Placement.GroupName", self.groups, "InvalidPlacementGroup.Unknown"),
            ("Placement.HostId", self.hosts, "InvalidHostID.NotFound"),
            ("Placement.HostResourceGroupArn", self.host_groups, "InvalidParameterValue"),
            (_RESERVATION, self.reservations, "InvalidCapacityReservationId.NotFound"),
            ("IamInstanceProfile.Name", self.profiles, "InvalidParameterValue"),
            ("IamInstanceProfile.Arn", self.profiles, "InvalidParameterValue"),
        ):
            if key in form and form[key] not in known:
                raise Refused(code, f"The value '{form[key]}' of {key} does not exist")
        on_host = "Placement.HostId" in form or "Placement.HostResourceGroupArn" in form
        if on_host and form.get("Placement.Tenancy") != "host":
            raise Refused("InvalidParameterCombination", "A host needs the tenancy 'host'")
        if market == "spot" and (form.get("Placement.Tenancy") == "host" or _RESERVATION in form):
            raise Refused("InvalidParameterCombination", "Spot instances have neither hosts nor reservations")
        if _RESERVATION in form and self.reservations[form[_RESERVATION]] is not (market == "capacity-block"):
            raise Refused("InvalidParameterCombination", "The market type does not match the capacity reservation")
        if market == "capacity-block" and _RESERVATION not in form:
            raise Refused("MissingParameter", "A capacity block has to be named")


def known_to_moto(body: bytes) -> bytes:
    """A form without what moto refuses or takes wrongly."""
    parts = [one for one in body.split(b"&") if not one.decode().startswith(_MOTO_LACKS)]
    return b"&".join(one for one in parts if one != b"InstanceMarketOptions.MarketType=capacity-block")
